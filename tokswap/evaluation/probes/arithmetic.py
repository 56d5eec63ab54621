"""The arithmetic probe: addition of numbers of one to six digits, and counting. Pure.

Reference: Tokenization counts, arXiv 2402.14903
"""

from __future__ import annotations

import random

from tokswap.evaluation.probes.question import Question, shots

MOST_DIGITS = 6
_ADD = "{} ="
_ADD_SHOTS = (("2 + 5", "7"), ("31 + 46", "77"), ("507 + 118", "625"), ("2140 + 3327", "5467"))
_COUNT = "{} makes"
_COUNT_SHOTS = (("cup cup", "2"), ("hat hat hat hat hat", "5"), ("pen pen pen", "3"))
_THINGS = ("dog", "tree", "car", "book", "bird", "shoe")
_MOST_THINGS = 9


def arithmetic(count: int, seed: int) -> list[Question]:
    """Return questions: additions by the number of digits, and counting of words.

    Args:
        count: Questions of each part; fewer where there are no more.
        seed: Seed of the draws.
    """
    draw = random.Random(seed)
    head = shots(_ADD, _ADD_SHOTS)
    questions = []
    for digits in range(1, MOST_DIGITS + 1):
        least, end = 10 ** (digits - 1), 10**digits
        span = end - least
        for place in draw.sample(range(span * span), min(count, span * span)):
            a, b = least + place // span, least + place % span
            part = f"add {digits} digit{'s' * (digits > 1)}"
            questions.append(Question(part, head + _ADD.format(f"{a} + {b}"), str(a + b)))
    pairs = [(thing, n) for thing in _THINGS for n in range(1, _MOST_THINGS + 1)]
    head = shots(_COUNT, _COUNT_SHOTS)
    questions += [
        Question("count words", head + _COUNT.format(" ".join([thing] * n)), str(n))
        for thing, n in draw.sample(pairs, min(count, len(pairs)))
    ]
    return questions
