"""Texts that tokenizers disagree on: several scripts, white space, digits, symbols, and a tokenizer's own special tokens."""

from __future__ import annotations

import json
from pathlib import Path

SHIPPED = Path(__file__).parent.parent / "texts"

ODD = (
    "",
    " ",
    "  ",
    "\t",
    "\n",
    "\n\n\n",
    " \n \t\n",
    "    return x  # done\n\n\tpass\r\n",
    *(" " * n + "x" for n in (1, 2, 3, 4, 7, 8, 15, 16, 31)),
    *("x" + " " * n for n in (1, 2, 3, 8)),
    *("a" + "\n" * n + "b" for n in (1, 2, 3, 4)),
    "Hello world",
    " Hello world",
    "HELLO, World!!! ... --- ===== ****",
    "don't I'll we've they're it's 'quoted' \"double\" `code`",
    "3.14159 1,000,000 2026-11-26 0x1F 007 1234567890123",
    "user@example.org https://example.org/a?b=c&d=%20#e",
    "naïve café Äpfel Straße œuvre ﬁne e\u0301 n\u0303",
    "日本語のテキスト。カタカナ ひらがな 漢字",
    "中文文本，没有空格。 한국어 문장입니다.",
    "Привет, мир! Γειά σου Κόσμε שלום עולם مرحبا بالعالم",
    "สวัสดีชาวโลก नमस्ते दुनिया ওহে বিশ্ব",
    "😀 👩‍👩‍👧‍👦 🇩🇪 ✨ → ∑ ½ № ™ …",
    "\u200b\u200d\ufeff\u00a0\u2009\u3000|",
    "\x00\x01\x7f\u0085",
    "▁ Ġ ## <0x41> <unk> [UNK] </s> <|endoftext|>",
    "a" * 70,
    "antidisestablishmentarianism Donaudampfschifffahrtsgesellschaft",
    '<html><body>x</body></html> {"key": [1, 2.5, null]} f(x) = y->z; i++ != --j',
    "SELECT * FROM t WHERE a <> 'b';\n-- end",
)
NEW_WORDS = ("kollabierbarkeit", "morgenfaltersteine", "tondelimeration")
"""Words that no vocabulary has, for extensions. They stand in no other text."""


def shipped() -> list[str]:
    """Return the texts of the test suite: six whole files, and their lines with and without a space before them."""
    whole = [path.read_text("utf-8") for path in sorted(SHIPPED.glob("*.txt"))]
    lines = [line for text in whole for line in text.splitlines() if line]
    return [*whole, *lines, *(" " + line for line in lines[::2])]


def with_tokens(tokens: list[str]) -> list[str]:
    """Put added tokens into texts: alone, between words with and without spaces, and in a row."""
    few = tokens[:12] + tokens[-12:]
    shapes = ("{0}", "one{0}two", "one {0} two", "{0}{0}\n{0}", " {0} ")
    return [shape.replace("{0}", token) for token in few for shape in shapes]


def write_corpus(path: Path, texts: list[str]) -> Path:
    """Write texts as JSON lines, one text a line."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts if text.strip()), encoding="utf-8")
    return path
