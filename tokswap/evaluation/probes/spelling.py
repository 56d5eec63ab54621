"""The spelling probe: does the model know the letters that its tokens stand for? Pure.

Reference: CUTE, arXiv 2409.15452
"""

from __future__ import annotations

import random

from tokswap.evaluation.probes.question import Question, shots

_WORDS = [
    "strawberry",
    "bottle",
    "garden",
    "window",
    "planet",
    "letter",
    "yellow",
    "silver",
    "winter",
    "summer",
    "rabbit",
    "kitchen",
    "mirror",
    "banana",
    "coffee",
    "pepper",
    "tomato",
    "carrot",
    "butter",
    "cheese",
    "orange",
    "pencil",
    "ribbon",
    "button",
    "pillow",
    "ladder",
    "hammer",
    "bridge",
    "castle",
    "forest",
    "island",
    "desert",
    "meadow",
    "harbor",
    "engine",
    "wheel",
    "guitar",
    "violin",
    "piano",
    "trumpet",
    "doctor",
    "teacher",
    "farmer",
    "sailor",
    "painter",
    "market",
    "village",
    "corner",
    "station",
    "ticket",
    "journey",
    "mountain",
    "thunder",
    "rainbow",
    "blanket",
    "basket",
    "feather",
    "chimney",
    "lantern",
]
_SPELL = "Spell the word {}:"
_SPELL_SHOTS = (("apple", "a-p-p-l-e"), ("house", "h-o-u-s-e"), ("river", "r-i-v-e-r"))
_COUNT = "How often is the letter {} written?"
_COUNT_SHOTS = (("p in apple", "2"), ("s in house", "1"), ("e in referee", "4"), ("n in cannon", "3"))


def spelling(count: int, seed: int) -> list[Question]:
    """Return questions: spell a word, and count a letter of a word.

    Args:
        count: Questions of each part, at most one for each of 60 words.
        seed: Seed of the draws.
    """
    draw = random.Random(seed)
    spelled = draw.sample(_WORDS, min(count, len(_WORDS)))
    counted = draw.sample(_WORDS, min(count, len(_WORDS)))
    head = shots(_SPELL, _SPELL_SHOTS)
    questions = [Question("spell", head + _SPELL.format(word), "-".join(word)) for word in spelled]
    head = shots(_COUNT, _COUNT_SHOTS)
    for n, word in enumerate(counted):
        repeated = sorted({letter for letter in word if word.count(letter) > 1})
        letter = draw.choice(repeated if repeated and n % 2 else sorted({*word}))
        answer = str(word.count(letter))
        questions.append(Question("count letters", head + _COUNT.format(f"{letter} in {word}"), answer))
    return questions
