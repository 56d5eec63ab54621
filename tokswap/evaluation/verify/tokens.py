"""Checks on the tokenizer of a result: its tokens, roles and ids beside those of the reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokswap.errors import count_of
from tokswap.evaluation.checks import Check, check_empty
from tokswap.evaluation.verify.folder import ROLES, Encode, Folder
from tokswap.evaluation.verify.reference import Reference
from tokswap.evaluation.verify.texts import spelled_texts, varied_texts
from tokswap.tokenizer.probes import TEXTS

_NUMBERS = ("7", "42", "365", "1984", "27182", "314159", "1234567", "90817263", "4050607080")


def own_checks(folder: Folder, reference: Reference | None, rows: int) -> Iterator[Check]:
    """Check a tokenizer against the rows of its model, and that decoding gives texts back.

    Args:
        folder: The result, whose tokenizer loads.
        reference: What it should be; None for a model alone.
        rows: Rows of the input embeddings.
    """
    lacking = {token: text for token, text in enumerate(folder.vocabulary) if token >= rows and text is not None}
    fine = f"{len(folder.vocabulary):,} ids, {rows:,} rows"
    if lacking:
        fine += f"; without a row, as before: {', '.join(map(repr, list(lacking.values())[:5]))}"
    bad = [] if reference is None else _needed(folder, reference, lacking)
    yield check_empty("vocabulary size", f"{rows:,} rows, and tokens without a row", bad, fine)
    outside = [name for name, text in TEXTS.items() if any(token >= rows for token in folder.encode(text))]
    yield check_empty("ids in range", "ids past the last row in these texts", outside, f"{len(TEXTS)} texts")
    stable = {name: _is_stable(folder, text) for name, text in TEXTS.items()}
    worse = [
        name
        for name, same in stable.items()
        if same is False and reference is not None and _is_stable(reference.folder, TEXTS[name])
    ]
    fine = f"{sum(same is True for same in stable.values())} of {len(TEXTS)} texts"
    yield check_empty("tokenizer round trip", "decoding changes these texts", worse, fine)


def reference_checks(folder: Folder, reference: Reference) -> Iterator[Check]:
    """Compare the tokenizer of a result with the one that it should be.

    Args:
        folder: The result.
        reference: What it should be.
    """
    yield _tokens_check(folder, reference)
    yield _added_check(folder, reference)
    yield _roles_check(folder, reference)
    yield _tokenization_check(folder, reference)
    if reference.digits is not None:
        yield _numbers_check(folder, reference.digits)


def compare_texts(folder: Folder, reference: Reference, texts: Sequence[str], encode: Encode) -> tuple[list[str], int]:
    """Tokenize texts with and without special tokens.

    Args:
        folder: The result.
        reference: What it should be.
        texts: The texts.
        encode: Tokenizes a text as the reference does; the second argument asks for special tokens.

    Returns:
        The texts whose ids differ, and the number of texts whose tokens the result has.
    """
    wrong, compared = [], 0
    for text in texts:
        for special in (False, True):
            expected = reference.translate(encode(text, special))
            if expected is None:
                continue
            compared += not special
            found = folder.encode(text, special=special)
            if special and reference.bos_added:
                expected = [folder.tokenizer.bos_token_id, *expected]
            if found != expected and reference.added.isdisjoint(found):
                wrong.append(text)
                break
    return wrong, compared


def _is_stable(folder: Folder, text: str) -> bool | None:
    """Whether a decoded text, tokenized and decoded again, stays as it is. The first pass may normalise.

    None where a token is unknown: it loses text, which proves nothing.
    """
    ids = folder.encode(text)
    if folder.tokenizer.unk_token_id in ids:
        return None
    once = _decode(folder.tokenizer, ids)
    return _decode(folder.tokenizer, folder.encode(once)) == once


def _decode(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def _needed(folder: Folder, reference: Reference, lacking: Mapping[int, str]) -> list[str]:
    """Of the tokens without a row, those that must have one: they have one in the reference, or serve as a role."""
    known = _without_row(reference)
    roles = {token for role, (_, token) in folder.roles.items() if role.removesuffix("_token") in ROLES}
    return [text for token, text in lacking.items() if text not in known or (token in roles and not reference.trim)]


def _without_row(reference: Reference) -> set[str | None]:
    """The tokens of the reference that have no row in its own model either."""
    return set() if reference.rows is None else set(reference.folder.vocabulary[reference.rows :])


def _tokens_check(folder: Folder, reference: Reference) -> Check:
    """Every id must be the same token as in the reference."""
    expected: dict[int, str | None] = {}
    known = _without_row(reference)
    for old, text in enumerate(reference.folder.vocabulary):
        new = reference.new(old)
        if new is not None and text is not None and not (reference.may_lack(old) and text not in folder.vocabulary):
            expected[new] = text
    found = {token: text for token, text in enumerate(folder.vocabulary) if text is not None}
    lost = [
        f"{token} is {found.get(token)!r}, not {text!r}" for token, text in expected.items() if found.get(token) != text
    ]
    more = [
        f"{token} {text!r} is not in it"
        for token, text in found.items()
        if token not in expected and text not in known and token not in reference.added
    ]
    return check_empty("tokens", f"ids differ from {reference.folder.path}", [*lost, *more], f"{len(found):,} ids")


def _added_check(folder: Folder, reference: Reference) -> Check:
    """Every added token must still be one: neither its row nor what it does in a text may be lost."""
    after = folder.added
    lost = [text for text in reference.needed_added if text not in after]
    return check_empty("added tokens", "lost", lost, f"{len(after):,} are kept")


def _roles_check(folder: Folder, reference: Reference) -> Check:
    wrong = []
    before, after = reference.folder.roles, folder.roles
    for role, (text, old) in before.items():
        if reference.may_lack(old) or (role == "bos_token" and reference.bos_added and role in after):
            continue
        if after.get(role) != (text, reference.new(old)):
            wrong.append(f"{role} is {after.get(role, (None,))[0]!r}, not {text!r}")
    plain = {f"{role}_token" for role in ROLES} - {"bos_token"}  # a processor's own, such as image_token, may be added
    wrong += [f"{role} is {after[role][0]!r}, not named" for role in after if role in plain and role not in before]
    special = set(reference.folder.tokenizer.all_special_tokens) - set(folder.tokenizer.all_special_tokens)
    wrong += [f"{text!r} is not special" for text in reference.needed_added if text in special]
    return check_empty("roles", "differ", list(dict.fromkeys(wrong)), ", ".join(after) or "it has none, as before")


def _tokenization_check(folder: Folder, reference: Reference) -> Check:
    own = reference.folder
    texts = varied_texts(sorted(own.added))
    if reference.trim or reference.new_of is not None:
        texts += spelled_texts(own, sorted(reference.new_of or range(len(own.vocabulary))))
    wrong, compared = compare_texts(folder, reference, texts, lambda text, special: own.encode(text, special=special))
    detail = count_of(compared, "text")
    of_file = own.file_encoders if wrong and not reference.trim else []
    if any(not compare_texts(folder, reference, texts, encode)[0] for encode in of_file):
        wrong, detail = [], detail + "; as the target's tokenizer.json says, whose class tokenizes differently"
    shown = [repr(text if len(text) < 40 else text[:37] + "...") for text in wrong]
    return check_empty("tokenization", f"{len(wrong)} of {compared} texts get other ids", shown, detail)


def _numbers_check(folder: Folder, scheme: str) -> Check:
    """Numbers must be split as `--digits` asked: no token crosses the edge of a group."""
    wrong = []
    for number in _NUMBERS:
        first = len(number) % 3 if scheme == "right-to-left" else 0
        size = 1 if scheme == "single" else 3
        edges = {*range(first, len(number), size), len(number)} - {0}
        tokens = [str(folder.tokenizer.decode([token])).strip() for token in folder.encode(f"x {number} y")]
        lengths = [len(token) for token in tokens if token.isdigit()]
        ends = {sum(lengths[: n + 1]) for n in range(len(lengths))}
        if sum(lengths) != len(number) or not edges <= ends:
            wrong.append(number)
    return check_empty("numbers", f"not split as --digits {scheme} says", wrong, f"{len(_NUMBERS)} numbers, {scheme}")
