"""Texts to compare tokenizers on: a few hundred made from short ones, and texts spelled with given tokens."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Sequence

from tokswap.evaluation.verify.folder import Folder
from tokswap.tokenizer.probes import PROMPTS, TEXTS

_VARIANTS: tuple[Callable[[str], str], ...] = (
    str,
    lambda text: " " + text,
    lambda text: "  " + text + "  ",
    lambda text: "\n\n" + text + "\n",
    lambda text: "\t" + text.replace(" ", "\t"),
    lambda text: text.replace(" ", "  "),
    lambda text: text.replace(" ", "\u00a0"),
    str.upper,
    str.title,
    lambda text: unicodedata.normalize("NFD", text),
    lambda text: text.replace(" ", ""),
    lambda text: "".join(reversed(text)),
)
_ODD = (
    "",
    " ",
    "\ufeffa",
    "a\u200bb\u200db\u2060c",
    "e\u0301 \u0958 \ufb01 \uff21\uff22 \u2460",
    "\u05e9\u05dc\u05d5\u05dd \u202ex\u202c",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U00020bb7",
    "\x00\x07\x1b[0m\x7f",
    "\r\n a\r b\u2028c\u0085d",
    "don't I'LL we've 'tis",
    "http://a.example/b?c=d&e=%20#f  <b>x</b>  \\n {{y}}",
    "100000 1,000.50 3e-10 0x1F 12:34",
    "!!!??...---___===~~~",
    "▁ ▁a Ġb ##c <0x41> </w>",
)
_MOST_ADDED, _MOST_TOKENS, _SENTENCE = 40, 2000, 12


def varied_texts(added: Sequence[str]) -> list[str]:
    """Return a few hundred texts: languages and code in variants, white space, odd characters, added tokens inside.

    Args:
        added: The added tokens of a tokenizer; of many, some evenly spaced ones are taken.
    """
    whole = [*TEXTS.values(), *PROMPTS]
    runs = [f"a{space * n}b{space * n}" for space in (" ", "\t", "\n") for n in (*range(1, 18), 24, 32, 60, 100)]
    runs += [f"a{before}{after}b" for before in ("\n", "\t ", " \n") for after in (" ", "   ", "\n  ", "\t")]
    some = added[:: max(1, len(added) // _MOST_ADDED)][:_MOST_ADDED]
    inside = [form.format(token) for token in some for form in ("{0}", "a{0}b", "The {0} end ", "x\n{0}{0}\n y")]
    long = "\n".join(whole) * 12
    return [*(change(text) for text in whole for change in _VARIANTS), *runs, *_ODD, *inside, long]


def spelled_texts(folder: Folder, ids: Sequence[int]) -> list[str]:
    """Return texts that a tokenizer decodes from given tokens, in an order that a fixed seed draws.

    Args:
        folder: Its folder.
        ids: The tokens; of many, a part is taken.
    """
    drawn = random.Random(0).sample(list(ids), min(len(ids), _MOST_TOKENS))
    rows = [[token] for token in drawn[: _MOST_TOKENS // 4]]
    rows += [drawn[start : start + _SENTENCE] for start in range(0, len(drawn), _SENTENCE)]
    return decode_all(folder, rows)


def decode_all(folder: Folder, rows: Sequence[Sequence[int]]) -> list[str]:
    """Return the texts of several sequences of ids, with special tokens and without cleaning up."""
    return list(folder.tokenizer.batch_decode(rows, skip_special_tokens=False, clean_up_tokenization_spaces=False))
