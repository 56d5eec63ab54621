"""What inference engines say to a draft, by name."""

from __future__ import annotations

from pathlib import Path

from tokswap.draft.engines import Verdict, draft_verdicts

ENGINES = ["vLLM", "llama.cpp", "transformers", "mlx-lm", "SGLang", "TensorRT-LLM", "tokswap"]


def found(draft: Path, target: Path) -> dict[str, Verdict]:
    """Return the verdict of each engine."""
    return {verdict.engine: verdict for verdict in draft_verdicts(draft, target)}


def refusals(draft: Path, target: Path) -> dict[str, str]:
    """Return the reasons of the engines that would not take a draft."""
    return {name: "; ".join(one.reasons) for name, one in found(draft, target).items() if not one.ok}
