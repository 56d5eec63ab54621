"""The vocabularies that llama.cpp tests itself with, in tiny .gguf models. What llama.cpp made of its texts counts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from field import checks, texts
from field.journey import Ground, Outcome, step, transplant, transplanted

WIDTH, FEED, HEADS = 32, 32, 2
BEGIN_WITH_BOS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2")
"""Pre-tokenizers of byte-level vocabularies with which llama.cpp begins texts with bos."""
BETWEEN = "\n__ggml_vocab_test__\n"


@dataclass(frozen=True)
class Expected:
    """What a .gguf vocabulary is: its tokens by id, whether llama.cpp begins texts with bos, and texts with their ids."""

    tokens: list[str]
    bos: bool
    eos: int | None
    texts: dict[str, list[int]]


def read_expected(folder: Path) -> Expected:
    """Read vocab.gguf, and the texts and ids beside it where there are any."""
    from gguf import GGUFReader

    fields = GGUFReader(folder / "vocab.gguf").fields
    eos, adds, kind = (fields.get(f"tokenizer.ggml.{key}") for key in ("eos_token_id", "add_bos_token", "model"))
    pre = fields.get("tokenizer.ggml.pre")
    usual = kind.contents() == "llama" or (pre is not None and pre.contents() in BEGIN_WITH_BOS)
    told: dict[str, list[int]] = {}
    if (folder / "vocab.gguf.inp").is_file():
        given = (folder / "vocab.gguf.inp").read_text("utf-8").split(BETWEEN)
        made = (folder / "vocab.gguf.out").read_text("utf-8").split("\n")
        told = {text: [int(index) for index in line.split()] for text, line in zip(given, made, strict=False)}
    return Expected(
        tokens=fields["tokenizer.ggml.tokens"].contents(),
        bos=bool(adds.contents()) if adds is not None else usual,
        eos=None if eos is None else int(eos.contents()),
        texts=told,
    )


def make_gguf(folder: Path, path: Path) -> Path:
    """Write a tiny Llama with the vocabulary of vocab.gguf: its keys are copied one by one."""
    import numpy as np
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    fields = GGUFReader(folder / "vocab.gguf").fields
    writer = GGUFWriter(path, "llama")
    for key, field in fields.items():
        if key.startswith("tokenizer."):
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], inner)
    rows = len(fields["tokenizer.ggml.tokens"].contents())
    writer.add_vocab_size(rows)
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FEED)
    writer.add_block_count(1)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    random = np.random.default_rng(0)
    square = dict.fromkeys(
        ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"), (WIDTH, WIDTH)
    )
    shapes = {"token_embd": (rows, WIDTH), "output": (rows, WIDTH), **{f"blk.0.{k}": v for k, v in square.items()}}
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", random.normal(0, 0.05, shape).astype("float32"))
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(WIDTH, "float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def travel_gguf(folder: Path, ground: Ground) -> Iterator[Outcome]:
    """Send a .gguf vocabulary through all steps."""
    expected = read_expected(folder)
    model = str(make_gguf(folder, ground.folder / "tiny.gguf"))
    yield step("inspect", ground, ["inspect", model, "--json"], lambda printed: _inspected(printed, expected))
    yield transplant("onto it", ground, (ground.base, Path(model)), lambda out: _onto(out, expected))
    base, bos = ground.base, expected.bos
    yield transplant("away from it", ground, (Path(model), base), lambda out: transplanted(out, None, base, bos=bos))
    seen = [text for text in expected.texts if text.strip()] or texts.shipped()
    corpus = texts.write_corpus(ground.folder / "corpus.jsonl", seen)
    out = ground.folder / "out" / "trim"
    arguments = ["trim", "--model", model, "--corpus", str(corpus)]
    yield step("trim", ground, arguments, lambda printed: _trimmed(out, Path(model), expected))


def _inspected(printed: str, expected: Expected) -> list[str]:
    """Compare the number of ids."""
    said = json.loads(printed[printed.index("{") : printed.rindex("}") + 1])["tokenizer"]["ids"]
    return [] if said == len(expected.tokens) else [f"{said} ids, not {len(expected.tokens)}"]


def _onto(out: Path, expected: Expected) -> list[str]:
    """Judge a transplant onto the vocabulary."""
    new, model = checks.load_tokenizer(out), checks.load_model(out)
    often = Counter(expected.tokens)
    ours = checks.tokens_by_id(new)
    wrong = [n for n, token in enumerate(expected.tokens) if often[token] == 1 and ours.get(n) != token]
    found = []
    if wrong:
        shown = [f"id {n} is {ours.get(n)!r}, not {expected.tokens[n]!r}" for n in wrong[: checks.MOST_EXAMPLES]]
        found.append(f"{len(wrong)} ids have other tokens: {'; '.join(shown)}")
    if new.eos_token_id != expected.eos:
        found.append(f"eos is {new.eos_token_id}, not {expected.eos}")
    told = {text: new(text, add_special_tokens=False)["input_ids"] for text in expected.texts}
    found += _differ(told, expected.texts)
    some = [*expected.texts, *texts.shipped()]
    return [*found, *checks.fits(model, new), *checks.runs(model, new, some[::9]), *checks.byte_rows(model, new)]


def _trimmed(out: Path, source: Path, expected: Expected) -> list[str]:
    """Judge a trim that has kept the tokens of llama.cpp's texts."""
    import torch
    from gguf import GGUFReader

    new, model = checks.load_tokenizer(out), checks.load_model(out)
    names = checks.tokens_by_id(new)
    told = {
        text: [names[index] for index in new(text, add_special_tokens=False)["input_ids"]]
        for text in expected.texts
        if text.strip()
    }
    want = {text: [expected.tokens[index] for index in expected.texts[text]] for text in told}
    found = _differ(told, want)
    before = {token: n for n, token in enumerate(expected.tokens)}
    table = next(one.data for one in GGUFReader(source).tensors if one.name == "token_embd.weight")
    table = torch.tensor(table).to(model.dtype).float().numpy()  # .gguf files become bfloat16
    rows = checks.rows_of(model)[0]
    kept = [(index, before[token]) for token, index in new.get_vocab().items() if token in before]
    moved = [names[mine] for mine, own in kept if (rows[mine] != table[own]).any()]
    if moved:
        found.append(f"{len(moved)} kept tokens have other rows, such as {moved[0]!r}")
    return [*found, *checks.fits(model, new), *checks.runs(model, new, list(told) or texts.shipped()[:9])]


def _differ(told: dict[str, list[Any]], want: dict[str, list[Any]]) -> list[str]:
    wrong = [text for text in told if told[text] != want[text]]
    if not wrong:
        return []
    first = min(wrong, key=len)
    said = f"{first[:30]!r} is {told[first][:8]}, in llama.cpp {want[first][:8]}"
    return [f"{len(wrong)} of {len(told)} texts are not tokenized as by llama.cpp: {said}"]
