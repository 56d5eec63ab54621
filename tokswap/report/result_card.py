"""The model card of a written result: what `card` makes of the report and of the cards of both sources."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokswap.checkpoint.facts import model_facts
from tokswap.report.card import license_of, model_card
from tokswap.storage.links import check_links

_CARD = "README.md"
_CLASSES = {"causal": "AutoModelForCausalLM", "encoder-decoder": "AutoModelForSeq2SeqLM"}


def result_card(
    report: Mapping[str, Any], config: Mapping[str, Any], source: Path | None, target: Path | None = None
) -> bytes:
    """Return README.md of a result.

    Args:
        report: The summary of the run.
        config: config.json of the result.
        source: Folder of the source model, None where it was in memory.
        target: Folder of the target tokenizer, None where it has none.
    """
    facts = model_facts(config)
    masked = "AutoModelForMaskedLM" if "MaskedLM" in facts.architecture else "AutoModel"
    card = model_card(
        report,
        source_card=_card_of(source),
        target_license=license_of(_card_of(target)),
        auto_class=_CLASSES.get(facts.kind, masked),
    )
    return card.encode()


def _card_of(folder: Path | None) -> str | None:
    """The card of a model folder, None where there is none that can be read."""
    if folder is None or not folder.is_dir() or not (folder / _CARD).is_file():
        return None
    check_links(folder, [_CARD])
    try:
        return (folder / _CARD).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
