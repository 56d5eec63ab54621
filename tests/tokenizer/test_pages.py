"""Tokenizers of documents read words with their places on a page; their models are trimmed and extended as others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import makers
import pytest
import tools
from makers import copy_model, edit_json, tokenizer_size

import tokswap
from tokswap.tokenizer.tokenizer import read_tokenizer
from tokswap.transplant.advice import plan_notes

Make = Callable[..., Path]


def boxed(tokenizer: Path, folder: Path) -> Path:
    """A model whose tokenizer reads words with their boxes."""
    from transformers import LayoutLMConfig, LayoutLMForMaskedLM

    copy_model(tokenizer, folder)
    edit_json(folder / "tokenizer_config.json", tokenizer_class="LayoutLMv2Tokenizer")
    narrow = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    LayoutLMForMaskedLM(LayoutLMConfig(vocab_size=tokenizer_size(folder), **narrow)).save_pretrained(folder)
    return folder


@tools.needs_release_5
@pytest.mark.parametrize("job", ["trim", "extend"])
def test_words_with_boxes(job: str, tokenizer_of: Make, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    source, out = boxed(tokenizer_of("wordpiece"), tmp_path / "source"), tmp_path / "out"
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


@tools.needs_release_5
def test_words_with_paths(model_of: Make, tmp_path: Path) -> None:
    """MarkupLM's class drops the white space between the words of a text, so it needs other tokens than the text."""
    source, out = copy_model(model_of("roberta", rows=640), tmp_path / "source"), tmp_path / "out"
    edit_json(source / "tokenizer_config.json", tokenizer_class="MarkupLMTokenizer", tags_dict={"html": 0, "body": 1})
    tokswap.trim_vocabulary(str(source), corpora=[makers.TEXTS / "english.txt"], out=out)
    assert [check for check in tokswap.verify_checkpoint(out, against=source) if not check.ok] == []


@tools.needs_release_5
def test_a_target_that_reads_plain_text_alone(tokenizer_of: Make, tmp_path: Path) -> None:
    """transformers ignores boxes that such a tokenizer is given, and takes the words for a batch of texts."""
    source = read_tokenizer(boxed(tokenizer_of("wordpiece"), tmp_path / "source"))
    plain = read_tokenizer(tokenizer_of("byte-level"))
    assert "(LayoutLMv2Tokenizer) takes boxes, word_labels beside a text" in " ".join(plan_notes(source, plain))
    assert "beside a text" not in " ".join(plan_notes(source, source) + plan_notes(plain, source))


@tools.needs_release_5
def test_a_limit_that_the_source_has_too(tokenizer_of: Make, tmp_path: Path) -> None:
    source, out = boxed(tokenizer_of("wordpiece"), tmp_path / "source"), tmp_path / "out"
    edit_json(source / "tokenizer_config.json", model_max_length=9000)
    tokswap.trim_vocabulary(str(source), corpora=[makers.TEXTS / "english.txt"], out=out)
    assert [check for check in tokswap.verify_checkpoint(out, against=source) if not check.ok] == []
