"""The facts probe: sentences with four endings, of which one is right. All sentences are original. Pure."""

from __future__ import annotations

import random

from tokswap.evaluation.probes.question import Question

CHOICES = 4
_FACTS = {
    "capitals": (
        "The capital of {} is",
        "France Paris; Germany Berlin; Italy Rome; Spain Madrid; Japan Tokyo; Russia Moscow; Egypt Cairo; "
        "Greece Athens; Austria Vienna; Poland Warsaw; Cuba Havana; Norway Oslo; Peru Lima; Ireland Dublin",
    ),
    "opposites": (
        "The opposite of {} is",
        "hot cold; big small; fast slow; light dark; rich poor; young old; wet dry; early late; hard soft; full empty; "
        "happy sad; loud quiet; open closed; strong weak",
    ),
    "animals": (
        "The young of a {} is called a",
        "dog puppy; cat kitten; cow calf; sheep lamb; horse foal; hen chick; bear cub; pig piglet; goat kid; "
        "duck duckling; deer fawn; frog tadpole; swan cygnet; goose gosling",
    ),
    "verbs": (
        "Today they {} again, just as yesterday they",
        "go went; eat ate; sing sang; swim swam; write wrote; drive drove; fly flew; buy bought; teach taught; "
        "run ran; give gave; speak spoke; sleep slept; build built",
    ),
    "work": (
        "You meet a {} at work in the",
        "teacher school; doctor hospital; cook kitchen; farmer field; judge court; sailor harbor; pilot airport; "
        "banker bank; actor theatre; priest church; miner mine; librarian library; baker bakery; soldier army",
    ),
}
"""Part -> a sentence, and its pairs of a word and the right ending."""


def facts(count: int, seed: int) -> list[Question]:
    """Return sentences with four endings each. The wrong endings are right for other sentences of the part.

    Args:
        count: Sentences of each part, at most 14.
        seed: Seed of the draws.
    """
    draw = random.Random(seed)
    questions = []
    for part, (sentence, listed) in _FACTS.items():
        pairs = [tuple(pair.split()) for pair in listed.split(";")]
        endings = [ending for _, ending in pairs]
        for word, right in draw.sample(pairs, min(count, len(pairs))):
            wrong = draw.sample([ending for ending in endings if ending != right], CHOICES - 1)
            choices = draw.sample([right, *wrong], CHOICES)
            questions.append(Question(part, sentence.format(word), right, choices=tuple(choices)))
    return questions
