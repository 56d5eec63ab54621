"""Languages: their frequent words, their scripts, and the letters, signs and digits that their texts use."""

from __future__ import annotations

import heapq
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from tokswap.errors import InputError, UsageError, did_you_mean
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, script_of

_UNSPACED_SCRIPTS = ("CJK", "Hiragana", "Katakana", "Katakana-hiragana", "Thai", "Lao", "Khmer", "Myanmar")
"""Scripts that put no spaces between words."""
_LARGE_SCRIPTS = ("CJK", "Hangul")
"""Scripts that a language uses only in part: only the characters of its words are kept."""
_CJK_SIGNS = ((0x3000, 0x303F), (0xFF00, 0xFFEF))
_SIGNS = ((0x00, 0xFF), (0x2000, 0x22FF))
"""Ranges of Unicode with signs that every language uses."""
_LEAST_SHARE = 0.01
"""A script with a smaller share of a language's letters than this comes from foreign words."""


@dataclass(frozen=True)
class Language:
    """A language as wordfreq knows it.

    Attributes:
        code: Code of the language, such as "de".
        words: Word in lower case -> its share of running text.
    """

    code: str
    words: Mapping[str, float]

    @cached_property
    def scripts(self) -> frozenset[str]:
        """The scripts of its letters, without those of foreign words; the names are those of `script_of`."""
        shares: dict[str, float] = {}
        for word, share in self.words.items():
            for script in {_script(character) for character in word if character.isalpha()}:
                shares[script] = shares.get(script, 0.0) + share
        least = _LEAST_SHARE * sum(shares.values())
        return frozenset(script for script, share in shares.items() if share >= least)

    @cached_property
    def characters(self) -> frozenset[str]:
        """The letters of its words that are in its scripts, in upper and lower case."""
        letters = {character for word in self.words for character in word if _script(character) in self.scripts}
        return frozenset(form for letter in letters for form in (letter, letter.upper(), letter.lower()))

    @property
    def spaced(self) -> bool:
        """Whether it puts spaces between words."""
        return self.scripts.isdisjoint(_UNSPACED_SCRIPTS)

    def knows(self, text: str) -> tuple[int, int]:
        """Count the words of a text that are in the word list.

        Letters count instead of words in a language without spaces between words.

        Args:
            text: Any text.

        Returns:
            The number of words, and how many of them are in the list.
        """
        letters = "".join(character if character.isalpha() else " " for character in text)
        if self.spaced:
            found = [word.lower() for word in letters.split()]
            return len(found), sum(word in self.words for word in found)
        found = list(letters.replace(" ", ""))
        return len(found), sum(letter in self.characters for letter in found)


def language(code: str, most: int = 200_000) -> Language:
    """Load the most frequent words of a language.

    Args:
        code: Code of the language, such as "de".
        most: Number of words.

    Raises:
        UsageError: unknown-language.
        InputError: missing-extra.

    Reference:
        Robyn Speer, wordfreq, https://github.com/rspeer/wordfreq
    """
    try:
        import wordfreq
    except ImportError as error:
        hint = "pip install 'tokswap[lang]', or give a text instead of a language"
        raise InputError("missing-extra", "word lists of languages come with wordfreq", hint) from error
    known = wordfreq.available_languages("best")
    if code not in known:
        raise UsageError(
            "unknown-language",
            f"there is no word list for the language `{code}`",
            f"choose one of {', '.join(sorted(known))}; give a --corpus for any other language",
        )
    words = dict(heapq.nlargest(most, wordfreq.get_frequency_dict(code, "best").items(), key=lambda entry: entry[1]))
    # The lists fold case, which loses one of two letters in German and in Greek.
    if code == "de":
        words |= {word.replace("ss", "ß"): share for word, share in words.items() if "ss" in word}
    if code == "el":
        words |= {word[:-1] + "ς": share for word, share in words.items() if word.endswith("σ")}
    return Language(code, words)


def surroundings(found: Language, vocabulary: Vocabulary) -> list[int]:
    """Find the tokens that texts of a language use besides words.

    These are its letters, the signs that go with them, ASCII digits and white space. In a language without spaces
    between words, tokens cross the edges of words, which no list of words shows. There, every token that consists of
    its letters and signs is one of them.

    Args:
        found: The language.
        vocabulary: The vocabulary to search.

    Returns:
        Token ids, ascending.
    """
    ids = []
    own = {letter for letter in found.characters if _script(letter) in _UNSPACED_SCRIPTS}
    for token, text in _texts(vocabulary):
        bare = text.strip(" ") or text
        if len(bare) == 1 and bare.isalpha():
            script = _script(bare)
            fits = bare in found.characters or (script in found.scripts and script not in _LARGE_SCRIPTS)
        elif not own.isdisjoint(bare):
            fits = all(c in own or _is_sign(c, found.scripts) for c in text)
        else:
            fits = (bare.isascii() and bare.isdigit()) or all(_is_sign(c, found.scripts) for c in text)
        if fits:
            ids.append(token)
    return ids


def script_tokens(names: list[str], vocabulary: Vocabulary) -> list[int]:
    """Find the tokens whose first letter is of one of some scripts.

    Args:
        names: Names of scripts, in any case.
        vocabulary: The vocabulary to search.

    Returns:
        Token ids, ascending.

    Raises:
        UsageError: unknown-script.
    """
    wanted = {name.casefold() for name in names}
    script_of_token = {token: script_of(text.encode()) for token, text in _texts(vocabulary)}
    known = {script.casefold(): script for script in script_of_token.values()}
    for name in names:
        if name.casefold() not in known:
            raise UsageError(
                "unknown-script",
                f"this vocabulary has no token in the script `{name}`" + did_you_mean(name, known.values()),
                f"it has {', '.join(sorted(known.values()))}",
            )
    return [token for token, script in script_of_token.items() if script.casefold() in wanted]


def _texts(vocabulary: Vocabulary) -> Iterator[tuple[int, str]]:
    """Yield the normal tokens whose bytes are UTF-8 on their own."""
    for token in np.flatnonzero(vocabulary.kind == Kind.NORMAL).tolist():
        try:
            text = vocabulary.token_bytes[token].decode("utf-8")
        except UnicodeDecodeError:
            continue
        if text:
            yield token, text


@cache
def _script(character: str) -> str:
    return script_of(character.encode("utf-8", "replace"))


def _is_sign(character: str, scripts: frozenset[str]) -> bool:
    """Whether a character is punctuation, a symbol or white space that goes with some scripts."""
    if unicodedata.category(character)[0] not in "PSZC":
        return False
    ranges = _SIGNS + (_CJK_SIGNS if scripts & {"CJK", "Hiragana", "Katakana", "Hangul"} else ())
    if any(first <= ord(character) <= last for first, last in ranges):
        return True
    return unicodedata.name(character, "").split(" ")[0].capitalize() in scripts  # ARABIC COMMA, DEVANAGARI DANDA
