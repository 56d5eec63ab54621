"""The chat probe: short conversations, of which a chat model ends its reply by itself. All are original. Pure."""

from __future__ import annotations

import random

from tokswap.evaluation.probes.question import Question

_ALONE = (
    "Hello! How are you today?",
    "What is the capital of France? Answer in one sentence.",
    "Name three colours.",
    "Write one short sentence about the sea.",
    "How many days has a week?",
    "Thank you for your help.",
    "Is water wet? Answer with yes or no.",
    "Translate to French: good morning.",
    "What do bees make?",
    "Tell me a fruit that is yellow.",
)
_BRIEF = "You are a polite assistant. Answer in one short sentence."
_SYSTEM = (
    (_BRIEF, "Why is the sky blue?"),
    (_BRIEF, "What is a library?"),
    (_BRIEF, "Who writes a novel?"),
    (_BRIEF, "What should I wear when it rains?"),
    (_BRIEF, "How do I boil an egg?"),
    ("Answer with one word.", "What is the opposite of cold?"),
    ("Answer with one word.", "Which animal barks?"),
    ("You are a guide in a museum.", "When was the wheel invented?"),
    ("You are a teacher of mathematics.", "What is 2 + 3?"),
    ("You answer questions about cooking.", "Which spice is hot?"),
)
_TWO_TURNS = (
    ("Hi, I am Ann.", "Hello Ann! What can I do for you?", "Please say my name once."),
    ("Which planet do we live on?", "We live on Earth.", "And which star does it circle?"),
    ("Name a pet.", "A cat.", "Name another one."),
    ("I like tea.", "Tea is a fine drink. Do you take milk with it?", "Yes, a little."),
    ("What is 4 + 4?", "4 + 4 is 8.", "And 5 + 5?"),
    ("Is a whale a fish?", "No, a whale is a mammal.", "Is a shark a fish?"),
    ("What is the first month?", "January.", "And the last one?"),
    ("Tell me a word for big.", "Large.", "Now a word for small, please."),
    ("Where do birds sleep?", "Many birds sleep in trees.", "Thanks. Good night!"),
    ("Which colour has grass?", "Grass is green.", "And snow?"),
)


def chat(count: int, seed: int) -> list[Question]:
    """Return conversations that wait for a reply: of one turn, with a system message, and of two turns.

    Args:
        count: Conversations of each part, at most 10.
        seed: Seed of the draws.
    """
    draw = random.Random(seed)
    parts: dict[str, list[tuple[tuple[str, str], ...]]] = {
        "one turn": [(("user", said),) for said in _ALONE],
        "system message": [(("system", rule), ("user", said)) for rule, said in _SYSTEM],
        "two turns": [(("user", a), ("assistant", b), ("user", c)) for a, b, c in _TWO_TURNS],
    }
    return [
        Question(part, talk[-1][1], "", messages=talk)
        for part, talks in parts.items()
        for talk in draw.sample(talks, min(count, len(talks)))
    ]
