"""Short texts to try tokenizers and models on. All sentences are original."""

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
