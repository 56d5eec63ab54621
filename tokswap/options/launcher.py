"""What a launcher asks for: `accelerate launch` hands its settings to each process in environment variables."""

from __future__ import annotations

import os

from tokswap.errors import UsageError

_SHARDED = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a parallelism config",
}
"""Variables that divide a model among devices, and what each stands for."""
_ON = ("1", "on", "t", "true", "y", "yes")


def check_launcher() -> None:
    """Check that each process of a training is to have the whole model. Raises UsageError cannot-shard.

    Where the model is divided, the parameters of a process are parts: accelerate ignores that on processors, and on
    GPUs rows that should stay would learn, and no process could measure or save the model.
    """
    for variable, what in _SHARDED.items():
        if os.environ.get(variable, "").lower() in _ON:
            raise UsageError(
                "cannot-shard",
                f"the launcher asks for {what}, and each process of a training has a whole copy of the model",
                "choose plain data parallelism: `accelerate launch --multi_gpu --num_processes N -m tokswap ...`, or "
                f"another answer in `accelerate config`; without accelerate's launcher, unset {variable}. "
                "`tokswap heal --shard` divides the body among the processes itself",
                variable=variable,
            )
