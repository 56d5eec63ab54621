"""Short texts to try tokenizers and models on. All sentences are original."""

from __future__ import annotations

import random
from collections.abc import Sequence

TEXTS = {
    "English": "The old bridge was closed for repairs, so we took the ferry across the river.",
    "German": "Der Zug fährt heute später, weil die Strecke übers Wochenende gesperrt war.",
    "French": "Après la pluie, les enfants sont sortis jouer près de l'église.",
    "Russian": "Вечером мы пошли в библиотеку и взяли несколько новых книг.",
    "Arabic": "ذهبنا إلى السوق في الصباح واشترينا الخبز والفواكه.",
    "Hindi": "बच्चे स्कूल के बाद मैदान में खेल रहे थे।",
    "Japanese": "駅前の本屋は夜九時まで開いています。",
    "Chinese": "春天来了,公园里的花都开了。",
    "Korean": "오늘은 날씨가 좋아서 산책을 했습니다.",
    "code": (
        "def area(shapes):\n    total = 0\n    for shape in shapes:\n"
        "        total += shape.w * shape.h\n    return total\n"
    ),
    "numbers": "In 1987 the 3,450 members paid 12.75 each: 43987.50 in all.",
    "spaces": "a  b   c\n\n\nd\t\te    f\n",
    "emoji": "see you there 👋🏽 at the café ☕",
}
"""Name -> text: languages, code, and text that tokenizers treat differently."""

PROMPTS = ("The capital of France is", "def add(a, b):\n", "Der Himmel ist", "1, 2, 3,", "Once upon a time")
"""Prompts for a language model."""

_FRAGMENTS = (
    *("don't", "I'LL", "we've", "'s", "''", "a'b", "ABC", "aBc", "McDonald", "iPhone15Pro", "ÉCOLE", "straßeN", "ЁлкА"),
    *("1", "12", "123", "1234", "12345", "1234567", "٣٤", "½", "Ⅻ", "v1.2", "1,234.5", "0x1F", "１２", "x1", "1x"),
    *(" ", "  ", "   ", "\t", "\t\t", "\n", "\n\n", "\r\n", " \n", "\n ", "\n  \n", "\u00a0", "\u3000", "\u200b"),
    *("\n" * 5, "\n" * 17, " " * 9, " " * 34, "\t" * 7, "▁▁", "-" * 33, "." * 6),
    *("!", "!!", "...", "--", "—", "(a)", "[b]", "_c_", "#", "//", "/*", "$x", "a/b", "=" * 9, "<", "|>", "`a`", "“q”"),
    *(
        "日本語",
        "かな",
        "カタカナ",
        "한국어",
        "中文，",
        "ไทย",
        "हिन्दी",
        "עברית",
        "عربي",
        "ё",
        "ß",
        "é",
        "e\u0301",
        "각",
    ),
    *("😀", "👍🏽", "🇩🇪", "❤️", "\ufeff", "\ufffd", "\U0001d4d7", "▁", "Ġ", "##a", "<0x41>", "。", "…", "、", "›"),
    *("the", " of", "und", " der", "return", " x", "def f(x):", "{}", ";", "https://a.b/c?d=e", "a@b.c", "a.b", "C++"),
)


def mixed_texts(special: Sequence[str]) -> list[str]:
    """Return 500 texts that tokenizers treat differently, the same in every run; more where there are many tokens.

    Args:
        special: Special tokens, which are put between other texts.
    """
    draw = random.Random(17)
    texts = [*TEXTS.values(), *(f"a{token}b" for token in special), *(f" {token} x" for token in special)]
    while len(texts) < 500:
        texts.append("".join(draw.choice(_FRAGMENTS) for _ in range(draw.randint(1, 6))))
    return texts
