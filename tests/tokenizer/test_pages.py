"""Tokenizers of documents read words with their places on a page; their models are trimmed and extended as others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import makers
import pytest
import tools
from makers import copy_model, edit_json, tokenizer_size

import tokswap

Make = Callable[..., Path]


@tools.needs_release_5
@pytest.mark.parametrize("job", ["trim", "extend"])
def test_words_with_boxes(job: str, tokenizer_of: Make, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LayoutLMConfig, LayoutLMForMaskedLM

    source, out = copy_model(tokenizer_of("wordpiece"), tmp_path / "source"), tmp_path / "out"
    edit_json(source / "tokenizer_config.json", tokenizer_class="LayoutLMv2Tokenizer")
    narrow = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    LayoutLMForMaskedLM(LayoutLMConfig(vocab_size=tokenizer_size(source), **narrow)).save_pretrained(source)
    if job == "trim":
        tokswap.trim_vocabulary(str(source), corpora=[makers.TEXTS / "english.txt"], out=out)
    else:
        terms = tmp_path / "terms.txt"
        terms.write_text("wetterlandish\n")
        tokswap.extend_model(str(source), tokens=[terms], out=out)
    words, boxes = ["the", "letter"], [[1, 2, 3, 4]] * 2
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (source, out))
    assert type(after) is type(before)
    old, new = before(words, boxes=boxes), after(words, boxes=boxes)
    assert new.tokens() == old.tokens()
    assert new["bbox"] == old["bbox"]
    assert [check for check in tokswap.verify_checkpoint(out, against=source) if not check.ok] == []
