"""Which tokens are kept: corpora of every format, lists of words, languages, scripts, thresholds."""

from __future__ import annotations

import gzip
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest

from tokswap.errors import InputError, UsageError
from tokswap.tokenizer.alignment import Reason
from tokswap.tokenizer.languages import Language, language, script_tokens, surroundings
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.trim.corpora import SAMPLE_BYTES, count, find_corpus, read_sample
from tokswap.trim.options import TrimChoice
from tokswap.trim.selection import Selection, select
from tokswap.trim.words import read_words, weigh

TEXT = makers.shipped_text("german")
LINES = [line for line in TEXT.splitlines() if line]


@pytest.fixture(scope="module")
def tokenizer(tokenizer_of: Callable[..., Path]) -> Tokenizer:
    return read_tokenizer(tokenizer_of("byte-level", vocab_size=900))


def counted(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    found = Counter(token for text in texts for token in tokenizer.encode(text))
    return np.array([found[token] for token in range(len(tokenizer.vocabulary))])


def code_of(path: Path, tokenizer: Tokenizer, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        count(find_corpus(str(path)), tokenizer, **options)
    assert str(path) in str(caught.value)
    return caught.value.code


# Files.


def json_lines(key: str = "text") -> str:
    return "".join(json.dumps({key: line, "id": n}) + "\n" for n, line in enumerate(LINES))


def parquet(path: Path, key: str = "text") -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table({"id": list(range(len(LINES))), key: LINES}), path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.parquet"])
@pytest.mark.parametrize("key", ["text", "content"])
def test_documents_are_counted_one_by_one(name: str, key: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        parquet(path, key)
    else:
        data = json_lines(key).encode()
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found = count(find_corpus(str(path)), tokenizer, key=key)
    assert found.counts.tolist() == counted(tokenizer, LINES).tolist()
    assert found.bytes == sum(len(line.encode()) for line in LINES)
    if key != "text":
        assert code_of(path, tokenizer) == "missing-field"


def test_json_lines_may_be_plain_strings(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n\n".join(map(json.dumps, LINES)), encoding="utf-8")
    assert (
        count(find_corpus(str(tmp_path / "a.jsonl")), tokenizer).counts.tolist() == counted(tokenizer, LINES).tolist()
    )


@pytest.mark.parametrize("packed", [False, True])
def test_plain_text_is_counted_as_a_whole(packed: bool, tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / ("a.txt.gz" if packed else "a.txt")
    data = b"\xef\xbb\xbf" + TEXT.encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    found = count(find_corpus(str(path)), tokenizer)
    assert found.counts.tolist() == counted(tokenizer, [TEXT]).tolist()
    assert found.total == found.counts.sum() > 100
    assert "".join(window.text for window in found.sample) == TEXT


def test_a_long_stream_loses_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Several reads, several batches, lines without an end: what is counted is what is there."""
    text = "".join(f"{n} {line}\n" for n in range(9000) for line in LINES[:3]) + "x" * 3_000_000
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    seen: list[int] = []
    found = count(find_corpus(str(tmp_path / "a.txt")), tokenizer, progress=seen.append)
    assert found.bytes == len(text.encode()) == sum(seen)
    assert sum(len(window.text) for window in found.sample) <= SAMPLE_BYTES
    spelt = sum(int(n) * len(tokenizer.vocabulary.token_bytes[token]) for token, n in enumerate(found.counts))
    assert spelt == len(text.encode())


def test_folders_and_patterns(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n, line in enumerate(LINES[:4]):
        (tmp_path / "in" / f"{n}.txt").write_text(line, encoding="utf-8")
    want = counted(tokenizer, LINES[:4]).tolist()
    for spec in (str(tmp_path), str(tmp_path / "*" / "*.txt"), f"{tmp_path}=7"):
        assert count(find_corpus(spec), tokenizer).counts.tolist() == want
    assert find_corpus(f"{tmp_path}=7").minimum == 7
    odd = tmp_path / "a=3"
    odd.write_text("x")
    assert find_corpus(str(odd)).minimum is None
    assert find_corpus(f"{odd}=2").files == (odd,)
    for spec in (f"{odd}=x", f"{odd}=0"):
        with pytest.raises(UsageError) as caught:
            find_corpus(spec)
        assert caught.value.code == "bad-minimum"


DAMAGED = {
    "a.txt": "größer".encode("latin-1"),
    "b.txt": "ab\n".encode("utf-16"),
    "a.jsonl": b'{"text": "x"}\n{"text": ',
    "b.jsonl": '"größer"'.encode("latin-1"),
    "a.txt.gz": b"not packed",
    "b.txt.gz": gzip.compress(b"x" * 999)[:-9],
    "a.parquet": b"PAR1 it is not",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(name: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(DAMAGED[name])
    assert code_of(tmp_path / name, tokenizer) == "bad-text"


@pytest.mark.parametrize("line", ['{"id": 1}', '{"text": 5}', "[1]", "7", "null"])
def test_lines_without_text(line: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line)
    assert code_of(tmp_path / "a.jsonl", tokenizer) == "missing-field"


def test_half_a_surrogate_pair_stops_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(r'{"text": "a\ud83d b"}')
    assert count(find_corpus(str(tmp_path / "a.jsonl")), tokenizer).total > 2


def test_missing_extras_are_named(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    assert code_of(tmp_path / "a.parquet", tokenizer) == "missing-extra"
    with pytest.raises(InputError) as caught:
        language("de")
    assert caught.value.code == "missing-extra"
    assert "tokswap[lang]" in caught.value.hint


def test_a_sample_is_spread_over_the_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"{n:099}\n" for n in range(120_000)))
    sample = read_sample(find_corpus(str(tmp_path / "a.txt")), tokenizer)
    places = [int(window.text.split()[0]) for window in sample]
    assert places[0] == 0
    assert places[-1] > 110_000
    assert np.diff(places).max() < 2 * np.diff(places).min() + 100


# Thresholds.


def chosen(tokenizer: Tokenizer, **choice: Any) -> Selection:
    return select(TrimChoice(**choice), tokenizer, set())


def file(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def kept(tokenizer: Tokenizer, selection: Selection, reason: Reason = Reason.OBSERVED) -> set[str]:
    return {tokenizer.vocabulary.text[token] for token in selection.ids[selection.reason == reason].tolist()}


def test_minimum_counts_of_each_corpus(tokenizer: Tokenizer, tmp_path: Path) -> None:
    often, rare = file(tmp_path, "a.txt", "der der der und\n"), file(tmp_path, "b.txt", " ein ein the\n")
    at_least_2 = kept(tokenizer, chosen(tokenizer, corpora=(often, rare), min_count=2))
    own = kept(tokenizer, chosen(tokenizer, corpora=(often, f"{rare}=1"), min_count=2))
    assert {"Ġder", "Ġein"} <= at_least_2
    assert "Ġund" not in own
    assert "Ġthe" in own - at_least_2


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
def test_coverage_is_reached_with_no_token_too_many(share: float, tokenizer: Tokenizer, tmp_path: Path) -> None:
    selection = chosen(tokenizer, corpora=(file(tmp_path, "a.txt", TEXT),), coverage=share)
    counts = count(find_corpus(str(tmp_path / "a.txt")), tokenizer).counts
    frequent = np.sort(counts)[::-1]
    need = int(np.searchsorted(np.cumsum(frequent), share * counts.sum() - 1e-6)) + 1
    least_kept = frequent[need - 1]
    assert selection.corpora[0].kept >= share - 1e-9
    observed = selection.ids[selection.reason == Reason.OBSERVED]
    assert counts[observed].min() >= least_kept
    assert len(observed) <= need


def test_every_corpus_is_covered_whatever_its_size(tokenizer: Tokenizer, tmp_path: Path) -> None:
    large, small = file(tmp_path, "a.txt", TEXT * 50), file(tmp_path, "b.txt", makers.shipped_text("english")[:400])
    facts = chosen(tokenizer, corpora=(large, small), coverage=0.95).corpora
    assert all(fact.kept >= 0.95 for fact in facts)
    sized = chosen(tokenizer, corpora=(large, small), target_size=500)
    assert min(fact.kept for fact in sized.corpora) > 0.8


def test_figures_of_a_corpus(tokenizer: Tokenizer, tmp_path: Path) -> None:
    fact = chosen(tokenizer, corpora=(file(tmp_path, "a.txt", TEXT),)).corpora[0]
    counts = counted(tokenizer, [TEXT])
    assert (fact.bytes, fact.tokens, fact.distinct) == (len(TEXT.encode()), counts.sum(), np.count_nonzero(counts))
    assert fact.kept == 1
    assert fact.once == pytest.approx(np.count_nonzero(counts == 1) / counts.sum())


def test_how_many_tokens_a_text_needs(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The most frequent tokens reach each share, one token fewer does not; the last point is the trim's own."""
    fact = chosen(tokenizer, corpora=(file(tmp_path, "a.txt", TEXT),), coverage=0.9).corpora[0]
    frequent = np.sort(counted(tokenizer, [TEXT]))[::-1]
    *points, (kept, held) = fact.curve
    assert [share for share, _ in points] == [0.95, 0.99, 1.0]
    for share, tokens in points:
        reached = frequent[:tokens].sum() / frequent.sum()
        assert reached >= share - 1e-12 > reached - frequent[tokens - 1] / frequent.sum()
    assert points[-1][1] == fact.distinct
    assert kept == fact.kept
    assert held < fact.distinct


def test_reasons_are_told_apart(tokenizer: Tokenizer, tmp_path: Path) -> None:
    selection = chosen(tokenizer, corpora=(file(tmp_path, "a.txt", "der der\n"),), keep_tokens=("Ġund", " the"))
    assert {"Ġund", "Ġthe", "<|im_end|>", "A"} <= kept(tokenizer, selection, Reason.FORCED)
    assert "Ġder" in kept(tokenizer, selection)
    dependencies = kept(tokenizer, selection, Reason.MERGE_DEPENDENCY)
    assert dependencies
    assert not dependencies & {"Ġder", "Ġund", "Ġthe"}


# Words, languages, scripts.


def test_lists_of_words(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = file(tmp_path, "w.txt", "brücke\t3\nfähre\n\nfähre\t2\n")
    assert read_words(Path(path)) == {"brücke": 3.0, "fähre": 3.0}
    selection = chosen(tokenizer, words=(path,))
    known = set(selection.ids.tolist())
    for text in (" brücke", " Brücke", "Brücke", " FÄHRE"):
        assert known.issuperset(tokenizer.encode(text)), text
    for content, code in (("a\tb", "bad-text"), ("\n \n", "empty-corpus")):
        with pytest.raises(InputError) as caught:
            read_words(Path(file(tmp_path, "bad.txt", content)))
        assert caught.value.code == code
    with pytest.raises(InputError):
        read_words(tmp_path / "none.txt")


def test_lists_of_words_in_json_lines(tmp_path: Path) -> None:
    """The JSON itself was taken for words."""
    path = file(tmp_path, "w.jsonl", '{"word": "brücke"}\n{"word": "fähre\\t2"}\n')
    assert read_words(path, "word") == {"brücke": 1.0, "fähre": 2.0}
    with pytest.raises(InputError, match="it has `word`"):
        read_words(path)


def test_weights_are_shares_of_the_words(tokenizer: Tokenizer) -> None:
    heavy, light = weigh("x", {"der": 9.0}, tokenizer), weigh("x", {"der": 1.0}, tokenizer)
    assert (heavy.counts == 9 * light.counts).all()
    assert heavy.counts[tokenizer.vocabulary.id_of_text["Ġder"]] > 0


def test_scripts_of_languages() -> None:
    assert language("de").scripts == {"Latin"}
    assert "Cyrillic" in language("ru").scripts
    japanese = language("ja")
    assert {"Hiragana", "Katakana", "CJK"} <= japanese.scripts
    assert not japanese.spaced
    assert {"straße", "weiß"} <= language("de").words.keys(), "the list folds ß into ss"
    assert {"τους", "της"} <= language("el").words.keys(), "and final sigma into sigma"
    assert "ß" in language("de").characters


def test_languages_are_told_apart() -> None:
    german, japanese = language("de"), language("ja")
    for name, mine in (("german", german), ("japanese", japanese)):
        words, known = mine.knows(makers.shipped_text(name))
        assert known > 0.8 * words > 50
    words, known = german.knows(makers.shipped_text("russian"))
    assert known < 0.2 * words


def test_surroundings(tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    german = {vocabulary.text[token] for token in surroundings(Language("de", {"über": 1.0, "ja": 1.0}), vocabulary)}
    assert {"a", "Z", "7", ".", "Ċ", "Ġ", "Ġ("} & set(vocabulary.text) <= german
    assert "Ġder" not in german
    japanese = surroundings(Language("ja", {"日本": 1.0, "ひ": 1.0}), vocabulary)
    assert {"。", "、"} & {vocabulary.token_bytes[token].decode("utf-8", "replace") for token in japanese}


def test_scripts(tokenizer: Tokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    found = {vocabulary.token_bytes[token].decode() for token in script_tokens(["cyrillic", "Latin"], vocabulary)}
    assert {" der", "a"} <= found
    assert any("а" <= text[-1] <= "я" for text in found)
    assert not any("ぁ" <= text[-1] <= "ん" for text in found)
    with pytest.raises(UsageError) as caught:
        script_tokens(["Latn"], vocabulary)
    assert "latin" in caught.value.message.lower()


@pytest.mark.slow
def test_a_language_without_a_corpus(tokenizer_of: Callable[..., Path]) -> None:
    """At least 99 % of the tokens of ordinary German text, with every family."""
    for family in makers.FAMILIES:
        tokenizer = read_tokenizer(tokenizer_of(family, vocab_size=1200))
        selection = chosen(tokenizer, languages=("de",))
        ids = [token for line in LINES for token in tokenizer.encode(line)]
        known = set(selection.ids.tolist())
        assert sum(token in known for token in ids) >= 0.99 * len(ids), family
        assert len(known) < len(tokenizer.vocabulary)
