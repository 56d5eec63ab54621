"""Texts of many kinds for comparing tokenizers, the same in every run: scripts, code, numbers, emoji, whitespace."""

from __future__ import annotations

import random
from collections.abc import Sequence

SCRIPTS = """The quick brown fox jumps over 13 lazy dogs.
Größere Straßen führen übers Fließwasser.
Où est l'hôtel près de la forêt, s'il vous plaît?
El niño pidió ¿cuánto cuesta? ¡Qué caro!
Příliš žluťoučký kůň úpěl ďábelské ódy.
Zażółć gęślą jaźń.
İstanbul'da ığdır çığlığı.
Съешь же ещё этих мягких французских булок.
Ґедзь з'їв їжака.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία.
שלום עולם, מה שלומך?
مرحبا بالعالم، كيف حالك؟ ١٢٣
دنیا سلام ۴۵۶
नमस्ते दुनिया, क्षत्रिय १२३
হ্যালো বিশ্ব ১২৩
வணக்கம் உலகம்
తెలుగు భాష
ಕನ್ನಡ
മലയാളം
สวัสดีชาวโลก ๑๒๓
ສະບາຍດີ
မင်္ဂလာပါ
ជំរាបសួរ
გამარჯობა მსოფლიო
Բարեւ աշխարհ
ሰላም ለዓለም ፩፪፫
こんにちは世界、カタカナとｶﾅ。
東京都で１２３円
안녕하세요 세계 각각
你好，世界！繁體字測試
ᚠᚢᚦᚨᚱᚲ
ᠮᠣᠩᠭᠣᠯ
བོད་སྐད
Ꮳꮃꭹ ᏣᎳᎩ
𐐀𐐨 𝓗𝓮𝓵𝓵𝓸 𝟙𝟚𝟛
Tiếng Việt có nhiều dấu: ườ, ẫy.
ﬁne ﬂow ﬃ
½ ¼ ² ³ ¹ ⅷ Ⅻ ① ⑳""".splitlines()
DECOMPOSED = ["e\u0301e\u0300 n\u0303o", "\u2126 \u212a \u212b", "\u1112\u1161\u11ab", "a\u0301\u0302\u0303 b"]
CODE = [
    "def f(x):\n    return x**2  # squared\n",
    "for (int i = 0; i < n; ++i) {\n\ta[i] += b[i]->c;\n}\n",
    "SELECT * FROM t WHERE a != 'b' AND c >= 1e-5;",
    '<div class="x"><p>Hi &amp; bye</p></div>',
    "\\begin{equation} \\frac{a}{b} \\end{equation}",
    "let x = y?.z ?? `a${b}`;",
    "#!/bin/sh\nset -euo pipefail\nls -la | grep '^d' > /dev/null 2>&1",
    '{"key": [1, 2.5, -3e10, null, true]}',
    "x = 0xDEADBEEF & ~0b1010 | 0o777",
    "user@example.com https://a.b/c?d=e&f=g#h",
    "a\r\nb\r\n\r\nc",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "1,234,567.89 $99.99 50% 12:34:56 2024-01-31 +1 (555) 010-9999",
]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "🇩🇪🇫🇷", "👍🏽", "❤️", "☺", "🏴\U000e0067\U000e0062\U000e007f", "🦄🌈✨", "a😀b", "©®™"]
SPACES = [
    *(" ", "  ", "   ", "    ", " " * 7, " " * 16, " " * 33, "\t", "\t\t", "\t" * 5, "\t" * 40, " \t "),
    *("\n", "\n\n", "\n\n\n", "\n" * 9, "\n" * 40, " \n", "\n ", "\n \n  \n", "\r\n", "\r", "\f", "\v"),
    *("\u00a0", "\u00a0\u00a0", "\u3000", "\u2003", "\u200b", "\u0085", "\u2028", "\ufeff", "\u00ad", "\u200d"),
]
WORDS = [
    *("don't", "I'M", "we'LL", "they've", "'s", "it's'", "''", "a'b", "ABC", "McDonald", "iPhone15Pro", "x", "ÉCOLE"),
    *("▁", "▁▁x", "Ġ", "Ċ", "##ing", "<0x0A>", "<0x41>", "[UNK]", "<", "<<", "|>", "...", "!?!", "--", "—", "“quoted”"),
    *("(a)", "[b]", "_c_", "__d", "snake_case", "kebab-case", "3rd", "v1.2.3", "12345678901234567890", "007", "٣٤"),
    *("\x01", "\x7f", "\ufffd", "\ue000", "\U0010ffff", "\u0378", "a" * 24, "ひ" * 5, "=" * 40, "-" * 17, "." * 25),
    *("🙂" * 5, "ÀÉÎ", "straßeN", "ΣΊΣΥΦΟΣ", "ЁлкА"),
]


def varied_texts(special: Sequence[str], count: int = 769) -> list[str]:
    """Return texts: each sample alone, whitespace and special tokens between letters, then random mixtures."""
    draw = random.Random(15)
    samples = [*SCRIPTS, *DECOMPOSED, *CODE, *EMOJI, *SPACES, *WORDS, *special]
    framed = [frame.format(space) for frame in ("{}a", "a{}", "a{}b", "1{}2.") for space in SPACES]
    framed += [frame.format(token) for frame in ("a{}b", " {} ", "{0}{0}", "{}\n\nx", "  {}  x") for token in special]
    texts = [*samples, *framed][: 2 * count // 3]
    while len(texts) < count:
        parts = [draw.choice(samples) for _ in range(draw.randint(2, 9))]
        pieces = [part if draw.random() < 0.8 else part[: draw.randint(1, len(part))] for part in parts]
        texts.append(draw.choice(["", " "]).join(pieces))
    return texts
