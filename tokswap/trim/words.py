"""What a language needs where there is no corpus of it: frequent words, and the characters, signs and digits around them."""

from __future__ import annotations

import heapq
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from tokswap.errors import InputError, UsageError, did_you_mean
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary, script_of
from tokswap.trim.corpora import Counts

_UNSPACED = ("CJK", "Hiragana", "Katakana", "Katakana-hiragana", "Thai", "Lao", "Khmer", "Myanmar")
_LARGE_SCRIPTS = ("CJK", "Hangul")
"""Scripts of which a language uses a part: only the characters of its words are kept."""
_CJK_SIGNS = ((0x3000, 0x303F), (0xFF00, 0xFFEF))
_SIGNS = ((0x00, 0xFF), (0x2000, 0x22FF))
_LEAST_SHARE = 0.01
_GROUP = 200
_BATCH = 100
_SAMPLE = 500


@dataclass(frozen=True)
class Language:
    """A language as wordfreq knows it. words: word, in lower case -> share of running text."""

    code: str
    words: Mapping[str, float]

    @cached_property
    def scripts(self) -> frozenset[str]:
        """The scripts of its letters, named as `compare.script_of` does, but for those of foreign words."""
        shares: dict[str, float] = {}
        for word, share in self.words.items():
            for script in {_script(character) for character in word if character.isalpha()}:
                shares[script] = shares.get(script, 0.0) + share
        least = _LEAST_SHARE * sum(shares.values())
        return frozenset(script for script, share in shares.items() if share >= least)

    @cached_property
    def characters(self) -> frozenset[str]:
        """The letters of its words that are in its scripts, in both cases."""
        letters = {character for word in self.words for character in word if _script(character) in self.scripts}
        return frozenset(form for letter in letters for form in (letter, letter.upper(), letter.lower()))

    @property
    def spaced(self) -> bool:
        """Whether its words stand between spaces."""
        return self.scripts.isdisjoint(_UNSPACED)

    def knows(self, text: str) -> tuple[int, int]:
        """Return how many words of a text there are, and how many of them are this language's.

        Letters count instead of words where words are not set apart.
        """
        letters = "".join(character if character.isalpha() else " " for character in text)
        if self.spaced:
            found = [word.lower() for word in letters.split()]
            return len(found), sum(word in self.words for word in found)
        found = list(letters.replace(" ", ""))
        return len(found), sum(letter in self.characters for letter in found)


def language(code: str, most: int = 200_000) -> Language:
    """Load the most frequent words of a language. Raises InputError missing-extra, UsageError unknown-language."""
    try:
        import wordfreq
    except ImportError as error:
        hint = "pip install 'tokswap[lang]', or give a --corpus"
        raise InputError("missing-extra", "--lang needs the word lists of wordfreq", hint) from error
    known = wordfreq.available_languages("best")
    if code not in known:
        raise UsageError(
            "unknown-language",
            f"there is no word list for the language `{code}`." + did_you_mean(code, known),
            f"known are {', '.join(sorted(known))}; for another one give a --corpus",
        )
    words = dict(heapq.nlargest(most, wordfreq.get_frequency_dict(code, "best").items(), key=lambda entry: entry[1]))
    # The lists fold case, which makes one letter of two in German and Greek.
    if code == "de":
        words |= {word.replace("ss", "ß"): share for word, share in words.items() if "ss" in word}
    if code == "el":
        words |= {word[:-1] + "ς": share for word, share in words.items() if word.endswith("σ")}
    return Language(code, words)


def read_words(path: Path) -> dict[str, float]:
    """Read a list of words: one a line, with a weight behind a tab where there are weights.

    Raises InputError: bad-text, empty-corpus.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("bad-text", f"this list of words cannot be read as UTF-8: {error}", file=path) from error
    words: dict[str, float] = {}
    for number, line in enumerate(lines, 1):
        word, tab, weight = line.strip().partition("\t")
        try:
            value = float(weight) if tab else 1.0
        except ValueError as error:
            hint = "write WORD, or WORD, a tab and a number"
            raise InputError("bad-text", f"line {number:,} has {weight!r} for a weight", hint, file=path) from error
        if word:
            words[word] = words.get(word, 0.0) + value
    if not words:
        raise InputError("empty-corpus", "there is no word in this list", "write one a line", file=path)
    return words


def weigh(name: str, words: Mapping[str, float], tokenizer: Tokenizer, *, spaced: bool = True) -> Counts:
    """Weigh the tokens of a list of words, each after a space and at the start of a line, in lower, title and upper case.

    Words of about the same weight are read side by side, as a text of them.
    """
    weights = np.zeros(len(tokenizer.vocabulary))
    entries = sorted(words.items(), key=lambda entry: -entry[1])
    groups = [entries[start : start + _GROUP] for start in range(0, len(entries), _GROUP)]
    for start in range(0, len(groups), _BATCH):
        texts: list[str] = []
        shares: list[float] = []
        for group in groups[start : start + _BATCH]:
            found = _spellings([word for word, _ in group], spaced)
            texts += found
            shares += [sum(share for _, share in group) / len(group)] * len(found)
        cut = tokenizer.encode_batch(texts)
        ids = np.fromiter(chain.from_iterable(cut), np.int64)
        weights += np.bincount(ids, np.repeat(shares, [len(row) for row in cut]), len(weights))
    sample = tuple((" " if spaced else "").join(word for word, _ in group) + "\n" for group in groups[:_SAMPLE])
    return Counts(name, weights, sum(len(word.encode("utf-8", "replace")) for word in words), None, sample)


def _spellings(words: list[str], spaced: bool) -> list[str]:
    """Return texts that show some words in all the places and cases that they may have."""
    title, upper = [word[:1].upper() + word[1:] for word in words], [word.upper() for word in words]
    texts = ["\n".join(words)]
    if spaced:  # with signs behind them, too: SentencePiece BPE may join a comma to the end of a word
        texts += [" " + " ".join(words), ", ".join(words) + ". ".join(words) + "."]
    if title != words:
        texts += ["\n".join(title), *([" " + " ".join(form) for form in (title, upper)] if spaced else [])]
    return texts


def surroundings(found: Language, vocabulary: Vocabulary) -> list[int]:
    """Return the tokens of a language's letters, of the signs that go with them, of ASCII digits and of white space.

    Where words are not set apart tokens cross their edges, which no list of words shows: then every token that is made of
    the language's own letters and signs is one of them.
    """
    ids = []
    own = {letter for letter in found.characters if _script(letter) in _UNSPACED}
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
    """Return the tokens whose first letter is of one of some scripts. Raises UsageError unknown-script."""
    wanted = {name.casefold() for name in names}
    script_of_token = {token: script_of(text.encode()) for token, text in _texts(vocabulary)}
    known = {script.casefold(): script for script in script_of_token.values()}
    for name in names:
        if name.casefold() not in known:
            raise UsageError(
                "unknown-script",
                f"this vocabulary has no token in the script `{name}`." + did_you_mean(name.casefold(), known),
                f"it has {', '.join(sorted(known.values()))}",
            )
    return [token for token, script in script_of_token.items() if script.casefold() in wanted]


def _texts(vocabulary: Vocabulary) -> Iterator[tuple[int, str]]:
    """Yield the normal tokens that are UTF-8 on their own."""
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
