"""The most used architectures besides those of `makers`, and those whose vocabulary needs something of its own.

Each is renumbered, given another tokenizer, and trimmed: `architectures.try_one` says what is compared. All that
transformers lists go through the same by `make compatibility`; docs/compatibility.md is its table.
"""

from __future__ import annotations

from pathlib import Path

import architectures
import pytest

USED = {
    "causal": (
        "cohere",
        "deepseek_v3",
        "deepseek_v4",
        "falcon",
        "gemma3",
        "gemma3n_text",
        "gpt_oss",
        "inkling2_text",
        "mamba",
        "mixtral",
        "mpt",
        "opt",
        "phi3",
        "qwen3_moe",
        "xglm",
    ),
    "masked": ("albert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "perceiver"),
    "sequence to sequence": ("m2m_100", "pegasus_x", "prophetnet"),
}
ALWAYS = ("cohere", "gemma3n_text", "mamba", "deberta-v2", "modernbert", "m2m_100", "perceiver")
"""Those that `make test` tries: each has a vocabulary matrix of an own kind or name. `make slow` tries all others."""


@pytest.mark.filterwarnings("ignore")  # what transformers says of tiny configs
@pytest.mark.parametrize(
    ("task", "model_type"),
    [
        pytest.param(task, name, marks=() if name in ALWAYS else pytest.mark.slow)
        for task, names in USED.items()
        for name in names
    ],
)
def test_transplant_and_trim(
    task: str, model_type: str, tmp_path: Path, tokenizers: tuple[Path, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    if model_type not in architectures.listed(task):
        pytest.skip(f"this transformers has no {model_type}")
    outcome = architectures.try_one(task, model_type, tmp_path, tokenizers)
    assert outcome.transplant in ("works", "works with a pad of the same id")
    assert outcome.trim == "works"


def test_what_cannot_be_done_is_refused(tmp_path: Path, tokenizers: tuple[Path, Path]) -> None:
    """Tables that are stored in an unknown way; a crash would be a failure here."""
    outcome = architectures.try_one("masked", "mobilebert", tmp_path, tokenizers)
    assert outcome.transplant.startswith("refuses: unknown-vocab-tensor")
    assert outcome.trim == outcome.transplant


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return architectures.two_tokenizers(tmp_path_factory.mktemp("tokenizers"))
