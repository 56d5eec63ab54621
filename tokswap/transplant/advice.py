"""What a user should know about a pair of tokenizers before trusting the result: notes for the Plan."""

from __future__ import annotations

import re
from collections import Counter

from tokswap.errors import count_of
from tokswap.report.wording import listed
from tokswap.tokenizer.alignment import Alignment
from tokswap.tokenizer.classes import inputs_of_class
from tokswap.tokenizer.describe import digit_scheme
from tokswap.tokenizer.digits import SCHEME_OF, digits_problem
from tokswap.tokenizer.post_processor import leading_ids, trailing_ids
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, script_of

_MEDIA = re.compile(r"['\"](image|video|audio)")
"""How a chat template asks for the type of a part of a message."""
_NO_SCRIPTS = {"digits", "symbols", "white space", "partial UTF-8", "Modifier", "Combining", "Ideographic", "Other"}


def plan_notes(source: Tokenizer, target: Tokenizer) -> list[str]:
    """Say what no method can repair: numbers that are tokenized differently, and scripts that the source cannot read.

    Args:
        source: The source tokenizer.
        target: The target tokenizer.

    Returns:
        One sentence a problem, none where all is well.
    """
    notes = []
    schemes = [digit_scheme(source), digit_scheme(target)]
    if schemes[0] != schemes[1]:
        before, after = ("no fixed groups" if scheme == "free" else scheme for scheme in schemes)
        notes.append(
            f"numbers are tokenized differently: {before} before, {after} after; arithmetic suffers, "
            f"whatever the method, until the model is trained further{_remedy(target, schemes[0])}"
        )
    own, theirs = inputs_of_class(source.config), inputs_of_class(target.config)
    if gone := [name for name in own if name not in theirs]:
        notes.append(
            f"the source's tokenizer ({source.config['tokenizer_class']}) takes {listed(gone)} beside a text, and the "
            "target's does not: the model gets none of them from the result's tokenizer"
        )
    unread = unread_scripts(source.vocabulary, target.vocabulary)
    if unread:
        some = [f"{name} ({count_of(own, 'token')} against {theirs:,})" for name, (theirs, own) in unread.items()]
        notes.append(
            f"the model hardly knows {listed(some)}: it spells these scripts in bytes or single letters, and the new "
            "embeddings for them are little better than guesses"
        )
    return notes


def _remedy(target: Tokenizer, scheme: str) -> str:
    """Name the option that gives the target the source's scheme, where there is one."""
    option = SCHEME_OF.get(scheme)
    if option is None or digits_problem(target, option) is not None:
        return ""
    return f", or with --digits {option}, which makes the result's tokenizer split numbers as the source's does"


def template_notes(source: Tokenizer, target: Tokenizer) -> tuple[str, ...]:
    """Say what the chat template of the result cannot do: it is the target's.

    Args:
        source: The source tokenizer.
        target: The target tokenizer.
    """
    if not target.chat_templates:
        return ("the target tokenizer has no chat template, so the result has none",)
    before, after = (_MEDIA.findall(" ".join(one.chat_templates.values())) for one in (source, target))
    lost = [part for part in dict.fromkeys(before) if part not in after]
    if not lost:
        return ()
    return (
        f"the chat template is the target's, which has no place for {listed(lost)}: "
        "write one that has, in chat_template.jinja of the result",
    )


def media_notes(source: Tokenizer, target: Tokenizer) -> tuple[str, ...]:
    """Name the added tokens that a model's processor may write and that the target lacks.

    Only the class of the processor knows which tokens it writes: that of Idefics3 writes `<row_1_col_1>`, whatever the
    files say.

    Args:
        source: The source tokenizer.
        target: The target tokenizer.
    """
    words, known = source.vocabulary, target.vocabulary
    added = {entry["id"] for entry in source.spec.get("added_tokens") or []} - set(words.roles.values())
    names = {token: words.text[token] for token in sorted(added) if words.kind[token] != Kind.UNUSED}
    lost = [
        text
        for token, text in names.items()
        if text not in known.id_of_text and words.token_bytes[token] not in known.id_of
    ]
    if not lost:
        return ()
    return (
        "the target tokenizer does not have these added tokens by name, and the model's processor may write them: "
        f"{listed(lost)}; `tokswap verify RESULT --against MODEL` tells whether it does",
    )


def frame_notes(source: Tokenizer, target: Tokenizer, alignment: Alignment, bos: int | None) -> tuple[str, ...]:
    """Say that the result's tokenizer no longer adds what the model expects around a text, such as [CLS] and [SEP].

    A bos token in front is left to `bos_to_add`.

    Args:
        source: The source tokenizer.
        target: The target tokenizer.
        alignment: Where each target row comes from.
        bos: Id that the result's tokenizer will put first, None where it stays as it is.
    """
    first = set() if bos is None else {bos}
    before = set() if source.adds_bos else _lost(leading_ids(source.spec), first | leading_ids(target.spec), alignment)
    after = _lost(trailing_ids(source.spec), trailing_ids(target.spec), alignment)
    if not before and not after:
        return ()
    places = [(before, "before"), (after, "after")]
    names = [f"{source.vocabulary.text[token]} {place}" for ids, place in places for token in sorted(ids)]
    one = source.vocabulary.text[min(before or after)]
    return (
        f"the model expects {' and '.join(names)} every text, and the result's tokenizer will not add it: give the "
        "target's tokenizer.json a post-processor that adds such tokens (TemplateProcessing), and name them with "
        f"--map-token 'TARGET={one}'; --bos only adds a token in front",
    )


def _lost(old: set[int], new: set[int], alignment: Alignment) -> set[int]:
    """Return the ids that a tokenizer adds around a text, if another adds none of them, under any name."""
    kept = {int(alignment.source_of[token]) for token in new}
    return set() if old & kept else old


def unread_scripts(source: Vocabulary, target: Vocabulary) -> dict[str, tuple[int, int]]:
    """Find the scripts that the target has many tokens of and the source next to none.

    Next to none is less than 0.3 % of the source vocabulary and less than a tenth of what the target has.

    Args:
        source: The source vocabulary.
        target: The target vocabulary.

    Returns:
        Script -> (tokens of the target, tokens of the source), the largest first.
    """
    # Every vocabulary knows the script of ASCII tokens, and most tokens are ASCII.
    theirs, own = (
        Counter(script_of(token_bytes) for token_bytes in vocabulary.id_of if not token_bytes.isascii())
        for vocabulary in (target, source)
    )
    least = max(20, len(target) // 2000)
    return {
        name: (count, own[name])
        for name, count in theirs.most_common()
        if name not in _NO_SCRIPTS | {"Latin"} and count >= least and own[name] < min(0.003 * len(source), 0.1 * count)
    }
