"""Published checkpoints, PyTorch and Flax, and everything that can be wrong with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import msgpack
import numpy as np
import pytest
from hypernets import make_hypernet, oracle

from tokswap.errors import InputError, OutputError, TokswapError, UsageError
from tokswap.hypernet import import_hypernet, load_hypernet
from tokswap.tokenizer.byte_alphabet import byte_alphabet_spec
from tokswap.tokenizer.tokenizer import read_tokenizer


def flax_names(weights: dict[str, Any]) -> dict[str, Any]:
    """Return a tree of parameters with the names and layouts of Flax, and with what only its files hold."""
    tree: dict[str, Any] = {}
    for name, value in weights.items():
        *path, last = name.replace("lang_embeddings.", "model.embeddings.lang_embedding.").split(".")
        # Flax names the parts of a Sequential layers_0; a layer of the encoder is just 0.
        path = [
            f"layers_{part}" if part.isdecimal() and path[n - 1] != "layer" else part for n, part in enumerate(path)
        ]
        if last == "weight":
            norm = path[-1] in ("ln", "LayerNorm")
            embedding = path[-1].endswith(("embeddings", "embedding"))
            last = "scale" if norm else "embedding" if embedding else "kernel"
            value = value.T if last == "kernel" else value
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[last] = np.ascontiguousarray(value)
    tree["model"]["encoder"]["layer"]["inter_token_blocks"] = np.zeros((4, 8), np.float32)
    return tree


def flax_bytes(tree: Any, *, bf16: bool = False, chunked: bool = False) -> bytes:
    """Serialise a tree as flax.serialization does."""

    def leaf(array: np.ndarray) -> msgpack.ExtType:
        kind, content = str(array.dtype), array.tobytes()
        if bf16:
            kind, content = (
                "bfloat16",
                (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes(),
            )
        return msgpack.ExtType(1, msgpack.packb((array.shape, kind, content), use_bin_type=True))

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: walk(child) for key, child in node.items()}
        if chunked and node.size > 100:
            parts = np.array_split(node.ravel(), 3)
            return {
                "__msgpack_chunked_array__": True,
                "shape": {str(n): side for n, side in enumerate(node.shape)},
                "chunks": {str(n): leaf(part) for n, part in enumerate(parts)},
            }
        return leaf(node)

    return bytes(msgpack.packb(walk(tree), use_bin_type=True))


@pytest.fixture(params=["tied", "untied"])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a folder as the original project publishes it, without its weights."""
    config, _, _ = oracle(request.param)
    folder = tmp_path / request.param
    folder.mkdir()
    base = makers.make_tokenizer("byte-level", tmp_path / "base", vocab_size=300)
    spec = byte_alphabet_spec(read_tokenizer(base), 300)
    # The tokenizer of the original run is not at hand. The numbers depend on its ids alone.
    spec["model"]["vocab"] = {
        token: n for token, n in spec["model"]["vocab"].items() if n < config["original_vocab_size"]
    }
    spec["model"]["merges"] = []
    makers.write_json(folder / "tokenizer.json", spec)
    remote = {"architectures": ["ZettHypernet"], "auto_map": {"AutoModel": "modeling_hypernet.ZettHypernet"}}
    makers.write_json(
        folder / "config.json", {**config, **remote, "id2label": {"0": "LABEL_0"}, "torch_dtype": "float32"}
    )
    (folder / "modeling_hypernet.py").write_text("raise SystemExit('remote code was run')")
    return folder


def put_safetensors(folder: Path, weights: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    dead = {"model.embeddings.word_embeddings.weight": np.zeros((2, 32), np.float32)}
    save_file({**weights, **dead}, folder / "model.safetensors")


def check_numbers(folder: Path, atol: float = 2e-5) -> None:
    _, _, data = oracle(folder.name)
    lang = int(data["lang"]) if data["lang"] >= 0 else None
    predicted = load_hypernet(folder)(data["forms"], data["source"], lang)
    np.testing.assert_allclose(predicted.input, data["predicted_in"], rtol=0, atol=atol)
    np.testing.assert_allclose(predicted.bias, data["predicted_bias"], rtol=0, atol=atol)


def test_the_pytorch_layout(published: Path) -> None:
    put_safetensors(published, oracle(published.name)[1])
    check_numbers(published)


@pytest.mark.parametrize("chunked", [False, True])
def test_the_flax_layout(published: Path, chunked: bool) -> None:
    tree = flax_names(oracle(published.name)[1])
    (published / "flax_model.msgpack").write_bytes(flax_bytes(tree, chunked=chunked))
    check_numbers(published)


def test_bfloat16_leaves(published: Path) -> None:
    tree = flax_names(oracle(published.name)[1])
    (published / "flax_model.msgpack").write_bytes(flax_bytes(tree, bf16=True))
    check_numbers(published, atol=0.1)
    weights = load_hypernet(published).network.state_dict()
    for name, value in oracle(published.name)[1].items():
        np.testing.assert_allclose(weights[name].numpy(), value, rtol=2**-7, atol=1e-30)


def test_float64_leaves(published: Path) -> None:
    put_safetensors(published, {name: value.astype(np.float64) for name, value in oracle(published.name)[1].items()})
    check_numbers(published)


def test_import_writes_the_layout_of_tokswap(published: Path, tmp_path: Path) -> None:
    (published / "flax_model.msgpack").write_bytes(flax_bytes(flax_names(oracle(published.name)[1])))
    codes = [f"l{n}" for n in range(5)] if published.name == "tied" else None
    out = tmp_path / "out" / published.name
    import_hypernet(str(published), out, languages=codes)
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    check_numbers(out)
    assert load_hypernet(out).config.languages == tuple(codes or ())
    with pytest.raises(OutputError) as caught:
        import_hypernet(str(published), out)
    assert caught.value.code == "output-exists"
    import_hypernet(str(published), out, force=True)


def test_languages_are_read_from_the_files(tmp_path: Path, published: Path) -> None:
    put_safetensors(published, oracle(published.name)[1])
    if published.name == "untied":
        with pytest.raises(UsageError) as caught:
            import_hypernet(str(published), tmp_path / "out", languages=["de"])
        assert caught.value.code == "bad-languages"
        return
    with pytest.raises(UsageError, match="`de` is listed twice"):
        import_hypernet(published, tmp_path / "out", languages=["de", "en", "de", "fr", "it"])
    for mark in ("", "\ufeff"):
        (published / "langs.txt").write_text(f"{mark}en\nde\nru\nja\nar\n", "utf-8")
        assert load_hypernet(published).config.languages == ("en", "de", "ru", "ja", "ar")
    (published / "langs.txt").write_bytes(b"en\n\xff\n")
    fails(published, "bad-text", "langs.txt")
    (published / "langs.txt").unlink()
    makers.edit_json(published / "config.json", langs=["a", "b", "c", "d", "e"])
    assert load_hypernet(published).config.languages == ("a", "b", "c", "d", "e")


# What can be wrong.


def test_a_tensor_is_missing(published: Path) -> None:
    weights = oracle(published.name)[1]
    del weights["model.encoder.layer.1.intermediate.dense.bias"]
    put_safetensors(published, weights)
    fails(published, "bad-hypernet", "model.encoder.layer.1.intermediate.dense.bias")


def test_a_tensor_is_not_understood(published: Path) -> None:
    put_safetensors(published, {**oracle(published.name)[1], "adapter.weight": np.zeros((2, 2), np.float32)})
    fails(published, "bad-hypernet", "adapter.weight")


def test_a_tensor_has_another_shape(published: Path) -> None:
    weights = oracle(published.name)[1]
    put_safetensors(published, {**weights, "scaler.w": np.ones((1, 23), np.float32)})
    fails(published, "bad-hypernet", "scaler.w is [1, 23]")


def test_too_few_positions(published: Path) -> None:
    weights = oracle(published.name)[1]
    name = "model.embeddings.position_embeddings.weight"
    put_safetensors(published, {**weights, name: weights[name][:4]})
    fails(published, "bad-hypernet", "4 positions")


def test_non_finite_numbers(published: Path) -> None:
    weights = oracle(published.name)[1]
    weights["scaler.w"] = np.full_like(weights["scaler.w"], np.nan)
    put_safetensors(published, weights)
    fails(published, "bad-hypernet", "non-finite")


def test_no_weights(published: Path) -> None:
    fails(published, "missing-hypernet", "no weights")


def test_pickles_are_not_opened(published: Path) -> None:
    (published / "pytorch_model.bin").write_bytes(b"\x80\x04this would be a pickle")
    fails(published, "pickled-weights", "unpickling")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        msgpack.packb([1, 2]),
        msgpack.packb({"a": 1}),
        msgpack.packb({"a": msgpack.ExtType(1, b"\xc1")}),
        msgpack.packb({"a": msgpack.ExtType(2, b"\x01")}),
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((3,), "float32", b"1234")))}),
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((1,), "object", b"1234")))}),
    ],
)
def test_damaged_flax_files(published: Path, content: bytes) -> None:
    (published / "flax_model.msgpack").write_bytes(content)
    fails(published, "bad-hypernet", "Flax file")


def test_a_damaged_safetensors_file(published: Path) -> None:
    (published / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    fails(published, "truncated-weights", "damaged")


def test_flax_files_need_msgpack(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (published / "flax_model.msgpack").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "msgpack", None)
    fails(published, "missing-extra", "tokswap[hypernet]")


def test_a_folder_without_config(tmp_path: Path) -> None:
    fails(tmp_path, "missing-config", "config.json")


def test_nothing_is_written_where_an_import_fails(published: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        import_hypernet(str(published), tmp_path / "new" / "out")
    assert not (tmp_path / "new" / "out").exists()


def fails(folder: Path, code: str, says: str) -> None:
    with pytest.raises(TokswapError) as caught:
        load_hypernet(folder)
    assert caught.value.code == code
    assert says in str(caught.value)


# In a transplant.


@pytest.mark.parametrize("architecture", ["llama-tied", "llama", "bert", "roberta", "t5", "gemma3"])
def test_transplants(architecture: str, model_of: Callable[..., Path], tmp_path: Path) -> None:
    """Missing rows are the predicted ones in every vocabulary matrix. `replace` predicts the others too."""
    import tools

    import tokswap

    base = model_of(architecture)
    has_bias = architecture in ("bert", "roberta")
    folder = make_hypernet(base, tmp_path / "hn", hn_predict_bias=has_bias)
    target = makers.make_tokenizer(
        "byte-level", tmp_path / "target", vocab_size=500, seed_text=[makers.shipped_text("german")]
    )
    options = {"path": str(folder)}
    report = tokswap.transplant_tokenizer(str(base), str(target), init="zett", settings=options, out=tmp_path / "out")
    assert all(check.ok for check in tokswap.verify_checkpoint(tmp_path / "out", against=base))
    hypernet, missing = load_hypernet(folder), report.alignment.missing
    token_bytes = read_tokenizer(target).vocabulary.token_bytes
    before, after = tools.weights(base), tools.weights(tmp_path / "out")
    head = "lm_head.weight" if hypernet.config.separate_out_embeddings else None
    parts = [before[tools.INPUT.get(architecture, "model.embed_tokens.weight")]] + ([before[head]] if head else [])
    source = np.concatenate([part.numpy() for part in parts], axis=1)
    wanted = hypernet(hypernet.surface.forms([token_bytes[n] for n in missing.tolist()]), source)
    found = after[tools.INPUT.get(architecture, "model.embed_tokens.weight")].numpy()[missing]
    np.testing.assert_allclose(found, wanted.input, rtol=0, atol=1e-5)
    if head:
        np.testing.assert_allclose(after[head].numpy()[missing], wanted.output, rtol=0, atol=1e-5)
    if has_bias:
        bias = {"bert": "cls.predictions.bias", "roberta": "lm_head.bias"}[architecture]
        np.testing.assert_allclose(after[bias].numpy()[missing], wanted.bias, rtol=0, atol=1e-5)
    whole = tokswap.plan_transplant(
        str(base), str(target), init="zett", settings={**options, "replace": "yes"}, out=tmp_path / "all"
    )
    assert "bytes" not in whole.plan.coverage
    assert whole.plan.coverage["missing"] == report.plan.coverage["missing"] + report.plan.coverage["bytes"]
    # The output tokenizer is the named one, not the one in the byte alphabet that is saved with the hypernetwork.
    text = makers.shipped_text("german")[:500]
    ids = read_tokenizer(tmp_path / "out").encode(text)
    assert ids == read_tokenizer(target).encode(text)


@pytest.mark.parametrize("architecture", ["llama-tied", "llama"])
def test_extends(architecture: str, model_of: Callable[..., Path], tmp_path: Path) -> None:
    """New tokens get the rows that the hypernetwork predicts of their bytes, and old rows stay."""
    import tools

    import tokswap

    base = model_of(architecture)
    folder = make_hypernet(base, tmp_path / "hn")
    (tmp_path / "terms.txt").write_text("harbourmaster\nferryman\n", encoding="utf-8")
    settings = {"path": str(folder)}
    options = {"init": "zett", "settings": settings, "input_norms": "method", "out": tmp_path / "out"}
    report = tokswap.extend_model(str(base), tokens=[tmp_path / "terms.txt"], **options)
    added = [token for token, _, _ in report.plan.counted.added]
    token_bytes = read_tokenizer(tmp_path / "out").vocabulary.token_bytes
    assert {b" harbourmaster", b" ferryman"} <= {token_bytes[token] for token in added}
    before, after = tools.weights(base), tools.weights(tmp_path / "out")
    hypernet, name = load_hypernet(folder), "model.embed_tokens.weight"
    head = "lm_head.weight" if hypernet.config.separate_out_embeddings else None
    source = np.concatenate([before[part].numpy() for part in (name, head) if part], axis=1)
    wanted = hypernet(hypernet.surface.forms([token_bytes[token] for token in added]), source)
    np.testing.assert_allclose(after[name].numpy()[added], wanted.input, rtol=0, atol=1e-5)
    if head:
        np.testing.assert_allclose(after[head].numpy()[added], wanted.output, rtol=0, atol=1e-5)
    old = min(added)
    assert (after[name][:old] == before[name][:old]).all()


def test_the_wrong_model_is_refused_in_the_plan(model_of: Callable[..., Path], tmp_path: Path) -> None:
    import tokswap

    folder = make_hypernet(model_of("llama"), tmp_path / "hn")
    with pytest.raises(InputError) as caught:
        tokswap.plan_transplant(
            str(model_of("llama-tied")),
            str(model_of("llama")),
            init="zett",
            settings={"path": str(folder)},
            out=tmp_path / "out",
        )
    assert caught.value.code == "wrong-base-model"
    for settings, code in (({}, "bad-setting"), ({"path": str(folder), "lang": "de"}, "unknown-language")):
        with pytest.raises(UsageError) as wrong:
            tokswap.plan_transplant(
                str(model_of("llama")),
                str(model_of("llama-tied")),
                init="zett",
                settings=settings,
                out=tmp_path / "out",
            )
        assert wrong.value.code == code


def test_a_moved_hypernetwork_still_loads(model_of: Callable[..., Path], tmp_path: Path) -> None:
    folder = make_hypernet(model_of("gpt-neox"), tmp_path / "hn")
    shutil.copytree(folder, tmp_path / "moved")
    assert load_hypernet(tmp_path / "moved").config == load_hypernet(folder).config
    assert json.loads((folder / "config.json").read_text())["model_type"] == "zett_hypernetwork"
