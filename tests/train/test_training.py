"""Tokenizers trained on a corpus, as stock transformers loads them: families, superwords, bytes, sizes, bad input."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from math import log
from pathlib import Path
from typing import Any

import makers
import pytest
from click.testing import CliRunner

import tokswap
from tokswap.cli import main
from tokswap.errors import TokswapError

CORPUS = [str(makers.TEXTS)]
PHRASES = (
    "of the in the on the and the to the for the . it is not a the end of the day . so it is in 1234567 and 12\n" * 40
)


def load(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def byte_text(data: bytes) -> str:
    """Bytes in GPT-2's byte alphabet, made by the tokenizers library and not by tokswap."""
    from tokenizers import pre_tokenizers

    split = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    table = {}
    for code in range(256):
        text = chr(code) if code < 128 else bytes([0xC2 + (code >= 0xC0), 0x80 + code % 64]).decode()
        table[code] = split.pre_tokenize_str(text)[0][0][-1]
    # Lead bytes: the first symbol of a character that begins with them.
    for lead in range(0xC2, 0xF5):
        first = bytes(
            [lead, *([0xA0, 0x80, 0x80] if lead in (0xE0,) else [0x90, 0x80, 0x80] if lead == 0xF0 else [0x80] * 3)]
        )
        length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        table[lead] = split.pre_tokenize_str(first[:length].decode())[0][0][0]
    return "".join(table[code] for code in data)


@pytest.fixture(scope="module")
def trained(tokenizer_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return the folder of a trained tokenizer, made once for each set of options."""
    made: dict[str, Path] = {}

    def find(family: str | None, corpora: list[str] | None = None, **options: Any) -> Path:
        key = repr((family, corpora, sorted(options.items())))
        if key not in made:
            if family is not None:
                options["like"] = like(tokenizer_of, family)
            made[key] = tmp_path_factory.mktemp("trained") / "out"
            tokswap.train_tokenizer(corpora or CORPUS, out=made[key], **{"size": 800, **options})
        return made[key]

    return find


def like(tokenizer_of: Callable[..., Path], family: str) -> Path:
    return tokenizer_of(family, chat_template=makers.CHAT_TEMPLATE, adds_bos=True)


@pytest.mark.parametrize("family", makers.FAMILIES)
def test_all_but_the_vocabulary_is_taken_over(
    tokenizer_of: Callable[..., Path], trained: Callable[..., Path], family: str
) -> None:
    source, folder = like(tokenizer_of, family), trained(family)
    before, after = load(source), load(folder)
    assert len(after) == 800
    assert after.special_tokens_map == before.special_tokens_map
    assert after.chat_template == before.chat_template
    assert after.convert_ids_to_tokens(after.encode("")) == before.convert_ids_to_tokens(before.encode(""))
    old, new = (makers.read_json(path / "tokenizer.json") for path in (source, folder))
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        assert new[part] == old[part]
    assert new["model"]["type"] == old["model"]["type"]
    for role, token in makers.role_ids(folder).items():
        assert after.convert_tokens_to_ids(getattr(after, f"{role}_token")) == token
    kept = {entry["content"] for entry in new["added_tokens"]}
    named = [entry["content"] for entry in old["added_tokens"]]
    assert kept == {token for token in named if "unused" not in token and "reserved" not in token}
    text = makers.shipped_text("german")[:400]
    assert len(after.encode(text, add_special_tokens=False)) < len(before.encode(text, add_special_tokens=False))
    unknown = [one.encode(text).count(one.unk_token_id) for one in (before, after)]
    assert unknown[1] <= unknown[0]
    if family in ("byte-level", "sentencepiece"):
        assert after.decode(after.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("family", makers.FAMILIES)
def test_added_tokens_behind_the_model_stay_behind_it(
    tokenizer_of: Callable[..., Path], tmp_path: Path, family: str
) -> None:
    """As in Llama 3, Qwen and T5: these ids are no tokens of the model."""
    source = load(like(tokenizer_of, family))
    source.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    source.add_tokens(["kaleidoscope"])
    source.save_pretrained(tmp_path / "like")
    out = tmp_path / "out"
    tokswap.train_tokenizer(CORPUS, size=700, like=tmp_path / "like", out=out)
    tokenizer = load(out)
    assert len(tokenizer) == 700
    assert tokenizer.convert_tokens_to_ids(["<|tool|>", "kaleidoscope"]) == [698, 699]
    ids = tokenizer.encode("a<|tool|>b kaleidoscope", add_special_tokens=False)
    assert {698, 699} <= {*ids}
    assert "<|tool|>" not in tokenizer.decode(ids, skip_special_tokens=True)
    model = makers.read_json(out / "tokenizer.json")["model"]
    texts = model["vocab"] if isinstance(model["vocab"], dict) else [text for text, _ in model["vocab"]]
    assert len(texts) == 698
    assert "kaleidoscope" not in texts


def test_a_byte_without_a_piece_of_its_own_stays_spelled(tokenizer_of: Callable[..., Path], tmp_path: Path) -> None:
    """Gemma has a tab, and no `<0x09>`; the text has no tab."""
    source = tmp_path / "like"
    shutil.copytree(tokenizer_of("sentencepiece", adds_bos=True), source)
    file = source / "tokenizer.json"
    file.write_text(file.read_text("utf-8").replace("<0x09>", r"\t"), encoding="utf-8")
    assert load(source).decode(load(source).encode("a\tb", add_special_tokens=False)) == "a\tb"
    tokswap.train_tokenizer(CORPUS, size=600, like=source, out=tmp_path / "out")
    tokenizer = load(tmp_path / "out")
    assert tokenizer.decode(tokenizer.encode("a\tb", add_special_tokens=False)) == "a\tb"


@pytest.mark.parametrize(("family", "model"), [("bpe", "BPE"), ("unigram", "Unigram")])
def test_a_new_tokenizer_spells_every_text(family: str, model: str, tmp_path: Path) -> None:
    tokswap.train_tokenizer(CORPUS, size=900, family=family, out=tmp_path / "out")
    tokenizer = load(tmp_path / "out")
    assert len(tokenizer) == 900
    assert makers.read_json(tmp_path / "out" / "tokenizer.json")["model"]["type"] == model
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == ((0, 0) if family == "bpe" else (1, 2))
    for text in ("the old bridge", "a  b\tc\n\nd ", "日本 😀 x", "ümlaut", "123 4567", " a", "  a"):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id not in ids
    assert len(tokenizer.encode("the old bridge", add_special_tokens=False)) < 10


def test_words_are_what_the_trainer_learns(trained: Callable[..., Path]) -> None:
    """The library's trainer, called on the same words by hand, gives the same merges."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    spec = makers.read_json(trained(None, held_out=CORPUS) / "tokenizer.json")
    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = Tokenizer.from_str(json.dumps(spec)).pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=799, min_frequency=2, initial_alphabet=sorted(alphabet), show_progress=False
    )
    plain.train_from_iterator([path.read_text("utf-8") for path in sorted(makers.TEXTS.glob("*.txt"))], trainer)
    expected = json.loads(plain.to_str())["model"]["merges"]
    # Ties are broken by id, and the alphabet is in another order here.
    assert len({*map(tuple, spec["model"]["merges"])} ^ {*map(tuple, expected)}) < 0.1 * len(expected)


@pytest.mark.parametrize("family", [None, "byte-level", "sentencepiece"])
def test_superwords_cross_spaces_and_no_numbers(
    trained: Callable[..., Path], tmp_path: Path, family: str | None
) -> None:
    corpus = tmp_path / "phrases.txt"
    corpus.write_text(PHRASES + makers.shipped_text("english") * 2, encoding="utf-8")
    size = 560 if family == "sentencepiece" else 460
    folder = trained(family, [str(corpus)], size=size, superwords=True, word_share=0.6)
    tokenizer = load(folder)
    tokens = [token.replace("Ġ", " ").replace("▁", " ") for token in tokenizer.get_vocab()]
    crossing = [token for token in tokens if " " in token.strip(" ")]
    assert len(crossing) > 10
    assert max(len(token.split()) for token in tokens) <= 4
    assert not [token for token in crossing if any(letter.isdigit() for letter in token)]
    text = "it is in the end of the day . and 1234567 it is"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert set(tokenizer.convert_ids_to_tokens(ids)) & {
        token for token in tokenizer.get_vocab() if "Ġ" in token[1:] or "▁" in token[1:]
    }
    assert len(tokenizer) == size


def test_numbers_are_split_in_threes_from_the_right(trained: Callable[..., Path], tmp_path: Path) -> None:
    corpus = tmp_path / "numbers.txt"
    corpus.write_text(
        "".join(f"it is {n * 7919} of the {n}\n" for n in range(1500)) + makers.shipped_text("english"),
        encoding="utf-8",
    )
    tokenizer = load(trained("byte-level", [str(corpus)], size=440, superwords=True))
    spec = makers.read_json(trained("byte-level", [str(corpus)], size=440, superwords=True) / "tokenizer.json")
    pieces = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("it is 1234567 of")
    assert [piece for piece, _ in pieces] == ["itĠisĠ", "1", "234", "567", "Ġof"]
    assert not [m for m in spec["model"]["merges"] if len("".join(m)) > 3 and any(c.isdigit() for c in "".join(m))]


@pytest.mark.parametrize("family", ["sentencepiece", "unigram"])
def test_numbers_are_learnt_as_they_were_split(trained: Callable[..., Path], tmp_path: Path, family: str) -> None:
    """These two have no token of several digits, and nothing but the vocabulary says so."""
    corpus = tmp_path / "numbers.txt"
    corpus.write_text("".join(f"in {1900 + n % 90} it is\n" for n in range(900)) * 2, encoding="utf-8")
    tokenizer = load(trained(family, [str(corpus), *CORPUS], size=700))
    assert tokenizer.tokenize("x 1955")[-4:] == ["1", "9", "5", "5"]
    tokens = [token for token in tokenizer.get_vocab() if not token.startswith("<0x")]
    assert [token for token in tokens if sum(character.isdigit() for character in token) > 1] == []


def test_every_superword_comes_out_of_the_merges(trained: Callable[..., Path]) -> None:
    folder = trained("byte-level", superwords=True, size=1200)
    backend = load(folder).backend_tokenizer
    spec = makers.read_json(folder / "tokenizer.json")
    special = {entry["content"] for entry in spec["added_tokens"]}
    lone = [token for token in spec["model"]["vocab"] if token not in special]
    wrong = [token for token in lone if [piece.value for piece in backend.model.tokenize(token)] != [token]]
    assert wrong == []


def test_second_stage_takes_the_most_frequent_pair_first(trained: Callable[..., Path], tmp_path: Path) -> None:
    """Counted by hand: the first superword is the pair of first-stage tokens that is the most frequent in the text."""
    corpus = tmp_path / "phrases.txt"
    corpus.write_text(PHRASES, encoding="utf-8")
    options: dict[str, Any] = {"held_out": [str(corpus)], "superwords": True}
    folder = trained(None, [str(corpus)], size=295, word_share=0.5, **options)
    spec = makers.read_json(folder / "tokenizer.json")
    within = [merge for merge in spec["model"]["merges"] if "Ġ" not in "".join(merge)[1:]]
    first = next(merge for merge in spec["model"]["merges"] if "Ġ" in "".join(merge)[1:])
    at = spec["model"]["merges"].index(first)
    from tokenizers import Tokenizer

    stage = Tokenizer.from_str(json.dumps({**spec, "model": {**spec["model"], "merges": spec["model"]["merges"][:at]}}))
    counts: Counter[tuple[str, str]] = Counter()
    for line in PHRASES.splitlines():
        tokens = stage.encode(line, add_special_tokens=False).tokens
        counts.update(pair for pair in pairwise(tokens) if not any(c.isdigit() for c in "".join(pair)))
    assert within
    assert counts[tuple(first)] == max(counts.values())


def test_supertokens_learn_from_pieces_across_words(trained: Callable[..., Path], tmp_path: Path) -> None:
    corpus = tmp_path / "phrases.txt"
    corpus.write_text(PHRASES, encoding="utf-8")
    first = trained(None, [str(corpus)], size=400, supertokens=True)
    tokenizer = load(first)
    assert [token for token in tokenizer.get_vocab() if "Ġ" in token[1:-1]]
    assert tokenizer.decode(tokenizer.encode(PHRASES[:200])) == PHRASES[:200]
    again = tmp_path / "again"
    tokswap.train_tokenizer([str(corpus)], size=400, supertokens=True, out=again)
    other = tmp_path / "other"
    tokswap.train_tokenizer([str(corpus)], size=400, supertokens=True, seed=1, out=other)
    files = [(folder / "tokenizer.json").read_bytes() for folder in (first, again, other)]
    assert files[0] == files[1] != files[2]


def test_bytes_that_are_no_text(trained: Callable[..., Path], tmp_path: Path) -> None:
    data = bytes(range(256)) * 4 + b"\x7fELF\x02\x01\x01\x00\xff\xfe\xfd" * 60
    (tmp_path / "a.bin").write_bytes(data)
    folder = trained("byte-level", [str(tmp_path / "a.bin")], size=274, binary=True)
    tokenizer = load(folder)
    vocab = tokenizer.get_vocab()
    spelled = byte_text(b"\x7fELF\x02\x01\x01\x00\xff\xfe\xfd")
    pieces = tokenizer.backend_tokenizer.model.tokenize(spelled)
    assert "".join(piece.value for piece in pieces) == spelled
    assert len(pieces) < 8
    assert any("ÿ" in token and len(token) > 1 for token in vocab)
    assert tokenizer.decode(tokenizer.encode("Grüße", add_special_tokens=False)) == "Grüße"
    ids = tokswap.read_tokenizer(folder).tokenize_bytes([data[-33:]])[0]
    assert len(ids) < 12


def test_special_tokens_in_the_text_are_not_trained_on(trained: Callable[..., Path], tmp_path: Path) -> None:
    corpus = tmp_path / "marked.txt"
    corpus.write_text(
        "a <|im_end|> b<|im_start|>c <0x41> d\n<|im_end|>\n<eos>\n" * 300 + makers.shipped_text("english"),
        encoding="utf-8",
    )
    for family in ("byte-level", "sentencepiece"):
        for kind in ({}, {"superwords": True}):
            spec = makers.read_json(trained(family, [str(corpus)], size=500, **kind) / "tokenizer.json")
            special = {entry["content"] for entry in spec["added_tokens"]}
            products = {"".join(merge) for merge in spec["model"]["merges"]}
            assert not [product for product in products if any(token in product for token in special)]
            parts = ("<e", "os>") if family == "sentencepiece" else ("<|", "|>")
            assert {"<eos>", "<|im_end|>"} & special
            assert not [product for product in products if any(part in product for part in parts)]
            if family == "sentencepiece":
                assert not [product for product in products if "<0x" in product]


def test_sizes_are_measured_on_text_that_was_not_trained_on(tmp_path: Path) -> None:
    job = tokswap.plan_tokenizer(CORPUS, sizes=["400", "600", "500"], held_out=[str(makers.TEXTS / "english.txt")])
    assert job.tokenizer is None
    assert [one.ids for one in job.figures] == [400, 500, 600]
    lengths = [one.tokens_per_byte for one in job.figures]
    assert lengths == sorted(lengths, reverse=True)
    out = tmp_path / "out"
    tokswap.train_tokenizer(CORPUS, size=500, held_out=[str(makers.TEXTS / "english.txt")], out=out)
    tokenizer, text = load(out), makers.shipped_text("english")
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert lengths[1] == pytest.approx(len(ids) / len(text.encode()))
    counts = Counter(ids)
    total = sum(counts.values())
    entropy = log(sum((n / total) ** 2.5 for n in counts.values())) / (1 - 2.5)
    assert job.figures[1].renyi == pytest.approx(entropy / log(500))
    seen = {token for path in makers.TEXTS.glob("*.txt") for token in tokenizer.encode(path.read_text("utf-8"))}
    text_tokens = [token for token in range(500) if len(tokswap.read_tokenizer(out).vocabulary.token_bytes[token]) > 1]
    dead = [token for token in text_tokens if token not in seen and token not in tokenizer.all_special_ids]
    assert job.figures[1].dead == len(dead)


@pytest.mark.parametrize("family", ["sentencepiece", "unigram", "wordpiece"])
def test_a_small_vocabulary_has_fewer_characters(tokenizer_of: Callable[..., Path], family: str) -> None:
    """Of six scripts there is no room for each character, and a merge of one that is left out is left out too."""
    sizes = (300, 700) if family != "wordpiece" else (100, 700)
    job = tokswap.plan_tokenizer(CORPUS, like=like(tokenizer_of, family), sizes=list(map(str, sizes)), size=sizes[0])
    assert [one.ids for one in job.figures] == [*sizes]
    model = job.tokenizer.spec["model"]
    tokens = {*model["vocab"]} if isinstance(model["vocab"], dict) else {text for text, _ in model["vocab"]}
    assert {one for merge in model.get("merges", ()) for one in (*merge, "".join(merge))} <= tokens
    assert len([one for one in tokens if len(one) == 1]) < sizes[0] / 2 + 10


def test_a_space_before_every_text_stays(tokenizer_of: Callable[..., Path], tmp_path: Path) -> None:
    """Also where tokens cross spaces, and the part that adds it is inside another one."""
    source = makers.copy_model(tokenizer_of("byte-level"), tmp_path / "like")
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    split = {"type": "Sequence", "pretokenizers": [digits, {"type": "Sequence", "pretokenizers": [byte_level]}]}
    makers.edit_json(source / "tokenizer.json", pre_tokenizer=split)
    makers.edit_json(source / "tokenizer_config.json", add_prefix_space=..., tokenizer_class="PreTrainedTokenizerFast")
    corpus = tmp_path / "phrases.txt"
    corpus.write_text(PHRASES, encoding="utf-8")
    tokswap.train_tokenizer([corpus], size=300, like=source, superwords=True, word_share=0.5, out=tmp_path / "out")
    found = [load(folder).tokenize("the end")[0] for folder in (source, tmp_path / "out")]
    assert [one[0] for one in found] == ["Ġ", "Ġ"]


def test_random_chunks_are_the_whole_text() -> None:
    from tokswap.train.text import random_chunks

    text = makers.shipped_text("english")
    chunks = list(random_chunks([text[:1000], text[1000:1500]], seed=0))
    assert "".join(chunks) == text[:1500]
    assert {len(chunk) for chunk in chunks[:-3]} == set(range(4, 24))


def test_a_sample_is_from_all_over_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokswap.train import text

    pieces = [f"{n:04}" for n in range(1000)]
    assert text.sample(pieces) == pieces
    monkeypatch.setattr(text, "_MEASURED_BYTES", 200)
    found = list(map(int, text.sample(pieces)))
    assert 25 <= len(found) <= 50
    assert {b - a for a, b in pairwise(found)} == {found[1]}
    assert found[-1] > 950


def test_a_part_of_the_corpus_is_held_out(tmp_path: Path) -> None:
    lines = [
        json.dumps({"text": f"common words {'secret' if n % 20 == 19 else 'public'} here " * 8}) for n in range(200)
    ]
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    tokswap.train_tokenizer([str(path)], size=276, out=tmp_path / "out")
    vocab = load(tmp_path / "out").get_vocab()
    assert "Ġpublic" in vocab
    assert "Ġsecret" not in vocab


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["tokenizer", "train", *arguments])


def test_the_command(tokenizer_of: Callable[..., Path], tmp_path: Path) -> None:
    out, source = tmp_path / "an output", str(like(tokenizer_of, "byte-level"))
    line = ["--corpus", CORPUS[0], "--like", source, "--out", str(out)]
    done = run(*line, "--size-sweep", "500,600", "--dry-run")
    assert done.exit_code == 0, done.output
    assert "500" in done.stdout
    assert "nothing was written" in done.stdout
    assert not out.exists()
    done = run(*line, "--size", "600", "--json")
    found = json.loads(done.stdout)
    assert found["sizes"][0]["ids"] == 600
    assert (found["family"], found["out"]) == ("byte-level BPE", str(out))
    shown = json.loads(run(*line[:-2], "--size-sweep", "500", "--dry-run", "--json").stdout)
    assert (shown["family"], shown["out"]) == (None, None)
    with pytest.raises(TokswapError, match="--out is missing"):
        tokswap.train_tokenizer(["./nowhere"], size=600)  # before a text is looked for
    assert makers.read_json(out / "tokenizer_training.json")["sizes"] == found["sizes"]
    assert len(load(out)) == 600
    assert run(*line, "--size", "600").exit_code == 1
    done = run(*line, "--size", "620", "--force", "-q")
    assert done.stdout.strip() == str(out)
    assert len(load(out)) == 620
    german = makers.TEXTS / "german.txt"
    run(*line, "--size", "600", "--force", "--held-out", str(german))
    [figures] = makers.read_json(out / "tokenizer_training.json")["sizes"]
    ids = load(out)(german.read_text("utf-8"), add_special_tokens=False)["input_ids"]
    assert figures["tokens_per_byte"] == pytest.approx(len(ids) / german.stat().st_size, rel=1e-6), "of this text"
    done = run(*line, "--size", "600", "--force")
    assert done.stdout.endswith(f"next: tokswap transplant --model ... --tokenizer '{out}'\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--size", "600"], "missing-out"),
        (["--out", "OUT"], "bad-size"),
        (["--size", "600", "--size-sweep", "4k", "--out", "OUT"], "bad-size"),
        (["--size", "200", "--out", "OUT"], "bad-size"),
        (["--size", "900000", "--out", "OUT"], "small-corpus"),
        (["--size", "9000", "--superwords", "--out", "OUT"], "small-corpus"),
        (["--size", "600", "--superwords", "--binary", "--out", "OUT"], "two-kinds"),
        (["--size", "600", "--binary", "--field", "body", "--out", "OUT"], "idle-option"),
        (["--size", "600", "--superwords", "--family", "unigram", "--out", "OUT"], "two-kinds"),
        (["--size", "600", "--superwords", "--like", "UNIGRAM", "--out", "OUT"], "not-bpe"),
        (["--size", "600", "--word-share", "1.5", "--out", "OUT"], "bad-share"),
        (["--size", "600", "--like", "./no-such", "--out", "OUT"], "unknown-tokenizer"),
        (["--size", "600", "--corpus", "none.txt", "--out", "OUT"], "missing-corpus"),
        (["--size", "600", "--corpus", "EMPTY", "--out", "OUT"], "empty-corpus"),
        (["--size", "600", "--corpus", "BYTES", "--out", "OUT"], "bad-text"),
        (["--size", "600", "--out", "FULL"], "output-exists"),
    ],
)
def test_bad_input(tokenizer_of: Callable[..., Path], tmp_path: Path, arguments: list[str], code: str) -> None:
    (tmp_path / "empty.txt").write_text(" \n", encoding="utf-8")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00abc" * 10)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine", encoding="utf-8")
    names = {
        "OUT": tmp_path / "out",
        "FULL": tmp_path / "full",
        "EMPTY": tmp_path / "empty.txt",
        "BYTES": tmp_path / "bytes.txt",
        "UNIGRAM": like(tokenizer_of, "unigram"),
    }
    corpus = [] if "--corpus" in arguments else ["--corpus", CORPUS[0]]
    done = run(*corpus, *(str(names.get(word, word)) for word in arguments), "--json")
    assert json.loads(done.stdout)["error"]["code"] == code
    assert done.exit_code in (1, 2)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.txt"]


def test_nothing_is_left_when_the_folder_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokswap.train import plan

    monkeypatch.setattr(plan, "TEXTS", {"a": "one two"})
    job = tokswap.plan_tokenizer(CORPUS, size=400, out=tmp_path / "out")
    spec = dict(job.tokenizer.spec)
    assert job.tokenizer.encode("one two")
    spec["pre_tokenizer"] = {"type": "Split", "pattern": {"String": "o"}, "behavior": "Removed", "invert": False}
    object.__setattr__(job.tokenizer, "spec", spec)
    with pytest.raises(TokswapError) as caught:
        job.run()
    assert caught.value.code == "check-failed"
    assert list(tmp_path.iterdir()) == []
