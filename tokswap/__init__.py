"""tokswap changes the vocabulary of a language model.

    import tokswap
    report = tokswap.transplant("./my-model", "./their-model", out="./mine-with-theirs")

Names are loaded on first use, so that importing tokswap is free.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokswap.checkpoint import Checkpoint, open_checkpoint
    from tokswap.compare import compare
    from tokswap.draft import draft, plan_draft
    from tokswap.engines import Verdict, draft_verdicts
    from tokswap.errors import InputError, OutputError, TokswapError, UsageError
    from tokswap.evaluate import Score, TokenLosses, bits_per_byte, token_losses
    from tokswap.inspect import inspect
    from tokswap.judge import Evaluation, evaluate
    from tokswap.report import Plan, Report
    from tokswap.tokenizer import Tokenizer, read_tokenizer
    from tokswap.transplant import plan_transplant, transplant
    from tokswap.trim import plan_trim, trim
    from tokswap.verify import Check, verify
    from tokswap.vocab import Kind, Vocabulary

_HOME = {
    "draft": "draft", "plan_draft": "draft", "Verdict": "engines", "draft_verdicts": "engines",
    "Checkpoint": "checkpoint", "open_checkpoint": "checkpoint", "compare": "compare", "InputError": "errors",
    "OutputError": "errors", "TokswapError": "errors", "UsageError": "errors", "Score": "evaluate",
    "evaluate": "judge", "Evaluation": "judge", "TokenLosses": "evaluate", "bits_per_byte": "evaluate", "token_losses": "evaluate", "inspect": "inspect", "Plan": "report", "Report": "report",
    "Tokenizer": "tokenizer", "read_tokenizer": "tokenizer", "plan_transplant": "transplant",
    "transplant": "transplant", "plan_trim": "trim", "trim": "trim", "Check": "verify", "verify": "verify", "Kind": "vocab", "Vocabulary": "vocab",
}  # fmt: skip

__all__ = [
    "Check",
    "Checkpoint",
    "Evaluation",
    "InputError",
    "Kind",
    "OutputError",
    "Plan",
    "Report",
    "Score",
    "TokenLosses",
    "Tokenizer",
    "TokswapError",
    "UsageError",
    "Verdict",
    "Vocabulary",
    "bits_per_byte",
    "compare",
    "draft",
    "draft_verdicts",
    "evaluate",
    "inspect",
    "open_checkpoint",
    "plan_draft",
    "plan_transplant",
    "plan_trim",
    "read_tokenizer",
    "token_losses",
    "transplant",
    "trim",
    "verify",
]


class _Package(ModuleType):
    """Keeps `tokswap.transplant` the function.

    Some functions are named like the module that they live in, and importing a submodule would put the module under
    that name. `from tokswap.transplant import ...` does not look here and finds the module.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tokswap' has no attribute {name!r}")
    return getattr(import_module(f"tokswap.{_HOME[name]}"), name)
