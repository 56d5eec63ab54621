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
    from tokswap.ensemble.check import check_ensemble
    from tokswap.ensemble.members import Ensemble, read_ensemble
    from tokswap.ensemble.mix import load_ensemble
    from tokswap.ensemble.prepare import plan_ensemble, prepare_ensemble
    from tokswap.ensemble.score import evaluate_ensemble
    from tokswap.errors import ClusterError, InputError, OutputError, TokswapError, UsageError
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
    "Checkpoint": "checkpoint", "ClusterError": "errors", "open_checkpoint": "checkpoint", "compare": "compare", "InputError": "errors",
    "OutputError": "errors", "TokswapError": "errors", "UsageError": "errors", "Score": "evaluate",
    "evaluate": "judge", "Evaluation": "judge", "TokenLosses": "evaluate", "bits_per_byte": "evaluate", "token_losses": "evaluate", "inspect": "inspect", "Plan": "report", "Report": "report",
    "Tokenizer": "tokenizer", "read_tokenizer": "tokenizer", "plan_transplant": "transplant",
    "Ensemble": "ensemble.members", "read_ensemble": "ensemble.members", "plan_ensemble": "ensemble.prepare",
    "prepare_ensemble": "ensemble.prepare", "check_ensemble": "ensemble.check", "load_ensemble": "ensemble.mix",
    "evaluate_ensemble": "ensemble.score",
    "transplant": "transplant", "plan_trim": "trim", "trim": "trim", "Check": "verify", "verify": "verify", "Kind": "vocab", "Vocabulary": "vocab",
}  # fmt: skip

__all__ = [
    "Check",
    "Checkpoint",
    "ClusterError",
    "Ensemble",
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
    "check_ensemble",
    "compare",
    "draft",
    "draft_verdicts",
    "evaluate",
    "evaluate_ensemble",
    "inspect",
    "load_ensemble",
    "open_checkpoint",
    "plan_draft",
    "plan_ensemble",
    "plan_transplant",
    "plan_trim",
    "prepare_ensemble",
    "read_ensemble",
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
