"""tokswap changes the vocabulary of a language model.

    import tokswap
    result = tokswap.transplant_tokenizer("./my-model", "./their-model", out="./mine-with-theirs")

Names are loaded on first use, so that importing tokswap is free.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokswap import hypernet as hypernet
    from tokswap.checkpoint.inspect import inspect_checkpoint
    from tokswap.checkpoint.reader import Checkpoint, open_checkpoint
    from tokswap.checkpoint.undertrained import undertrained_tokens
    from tokswap.draft.engines import Verdict, draft_verdicts
    from tokswap.draft.head import check_draft_head, plan_draft_head, reduce_draft_head
    from tokswap.draft.plan import make_draft, plan_draft
    from tokswap.ensemble.check import check_ensemble
    from tokswap.ensemble.members import Ensemble, read_ensemble
    from tokswap.ensemble.mix import load_ensemble
    from tokswap.ensemble.prepare import plan_ensemble, prepare_ensemble
    from tokswap.ensemble.score import evaluate_ensemble
    from tokswap.errors import ClusterError, InputError, OutputError, TokswapError, UsageError
    from tokswap.evaluation.checks import Check
    from tokswap.evaluation.evaluate import evaluate_models
    from tokswap.evaluation.losses import Score, TokenLosses, bits_per_byte, token_losses
    from tokswap.evaluation.results import Evaluation
    from tokswap.evaluation.verify import verify_checkpoint
    from tokswap.extend.plan import extend_model, plan_extend
    from tokswap.generation.generate import generate_text
    from tokswap.heal.plan import heal_model, plan_heal
    from tokswap.heal.result import HealReport
    from tokswap.report.plan import Plan
    from tokswap.report.record import Report
    from tokswap.tokenizer.compare import compare_tokenizers
    from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
    from tokswap.tokenizer.vocabulary import Kind, Vocabulary
    from tokswap.train.plan import plan_tokenizer, train_tokenizer
    from tokswap.transplant.plan import plan_transplant, transplant_tokenizer
    from tokswap.trim.plan import plan_trim, trim_vocabulary

_HOMES = {
    "checkpoint.inspect": ("inspect_checkpoint",),
    "checkpoint.reader": ("Checkpoint", "open_checkpoint"),
    "checkpoint.undertrained": ("undertrained_tokens",),
    "draft.engines": ("Verdict", "draft_verdicts"),
    "draft.head": ("check_draft_head", "plan_draft_head", "reduce_draft_head"),
    "draft.plan": ("make_draft", "plan_draft"),
    "ensemble.check": ("check_ensemble",),
    "ensemble.members": ("Ensemble", "read_ensemble"),
    "ensemble.mix": ("load_ensemble",),
    "ensemble.prepare": ("plan_ensemble", "prepare_ensemble"),
    "ensemble.score": ("evaluate_ensemble",),
    "errors": ("ClusterError", "InputError", "OutputError", "TokswapError", "UsageError"),
    "evaluation.checks": ("Check",),
    "evaluation.evaluate": ("evaluate_models",),
    "evaluation.losses": ("Score", "TokenLosses", "bits_per_byte", "token_losses"),
    "evaluation.results": ("Evaluation",),
    "evaluation.verify": ("verify_checkpoint",),
    "extend.plan": ("extend_model", "plan_extend"),
    "generation.generate": ("generate_text",),
    "heal.plan": ("heal_model", "plan_heal"),
    "heal.result": ("HealReport",),
    "report.plan": ("Plan",),
    "report.record": ("Report",),
    "tokenizer.compare": ("compare_tokenizers",),
    "tokenizer.tokenizer": ("Tokenizer", "read_tokenizer"),
    "tokenizer.vocabulary": ("Kind", "Vocabulary"),
    "train.plan": ("plan_tokenizer", "train_tokenizer"),
    "transplant.plan": ("plan_transplant", "transplant_tokenizer"),
    "trim.plan": ("plan_trim", "trim_vocabulary"),
}
_PACKAGES = ("hypernet",)
"""Libraries that are used by their names: `tokswap.hypernet.load_hypernet`."""
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Check",
    "Checkpoint",
    "ClusterError",
    "Ensemble",
    "Evaluation",
    "HealReport",
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
    "check_draft_head",
    "check_ensemble",
    "compare_tokenizers",
    "draft_verdicts",
    "evaluate_ensemble",
    "evaluate_models",
    "extend_model",
    "generate_text",
    "heal_model",
    "inspect_checkpoint",
    "load_ensemble",
    "make_draft",
    "open_checkpoint",
    "plan_draft",
    "plan_draft_head",
    "plan_ensemble",
    "plan_extend",
    "plan_heal",
    "plan_tokenizer",
    "plan_transplant",
    "plan_trim",
    "prepare_ensemble",
    "read_ensemble",
    "read_tokenizer",
    "reduce_draft_head",
    "token_losses",
    "train_tokenizer",
    "transplant_tokenizer",
    "trim_vocabulary",
    "undertrained_tokens",
    "verify_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("tokswap")
    if name in _PACKAGES:
        return import_module(f"tokswap.{name}")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tokswap' has no attribute {name!r}")
    return getattr(import_module(f"tokswap.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
