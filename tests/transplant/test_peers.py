"""Defects of other tools that do this job. Each test states one in its first line and shows that it is not here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import tools
from makers import copy_model, edit_json, read_json, write_json

import tokswap
from tokswap.errors import InputError, OutputError
from tokswap.init.registry import METHODS
from tokswap.tokenizer.probes import PROMPTS
from tokswap.transplant.run import TransplantJob

Make = Callable[..., Path]
INPUT, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def plan(source: Path, target: Path, **options: Any) -> TransplantJob:
    return tokswap.plan_transplant(str(source), str(target), **{"out": "nowhere", "init": "subword", **options})


def computed(folder: Path) -> np.ndarray:
    """The target ids whose rows a method computed."""
    tokens = read_json(folder / "tokswap.json")["tokens"]
    return np.flatnonzero(np.array(tokens["reason"]) == tokens["reasons"]["missing"])


# mergekit-tokensurgeon: methods and numbers.


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"trans-tokenizer", "wechsel", "zett"}))  # read a user's files
def test_a_method_that_is_offered_does_not_crash_in_any_dtype(
    method: str, dtype: str, model_of: Make, tmp_path: Path
) -> None:
    """Two of its methods always crash, one does in bfloat16, and the mean does with noise."""
    source = model_of("llama", vocab_size=640, dtype=dtype)
    donor = model_of("gpt-neox", vocab_size=700, dtype="bfloat16")
    tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out", init=method)
    new = tools.weights(tmp_path / "out")
    assert {str(new[name].dtype) for name in (INPUT, HEAD)} == {f"torch.{dtype}"}
    rows = new[INPUT][computed(tmp_path / "out")].float()
    assert len(rows) > 50
    assert rows.isfinite().all()
    assert rows.any() == (method != "zero")


def test_input_embeddings_and_lm_head_are_not_swapped(model_of: Make, tmp_path: Path) -> None:
    """Its prefix and byte matches put rows of the input embedding into the output head, and the other way round."""
    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")

    def sign(tensors: dict[str, Any]) -> None:
        tensors[INPUT].abs_().add_(0.01)
        tensors[HEAD].abs_().add_(0.01).neg_()

    tools.rewrite(source, sign)
    for method in ("subword", "mean"):
        tokswap.transplant_tokenizer(
            str(source), str(model_of("gpt2", vocab_size=700)), out=tmp_path / method, init=method
        )
        new = tools.weights(tmp_path / method)
        assert (new[INPUT] > 0).all()
        assert (new[HEAD] < 0).all()


def test_each_matrix_is_solved_over_the_donors_matrix_of_its_role(model_of: Make, tmp_path: Path) -> None:
    """A donor's input embedding says nothing about the output head."""
    import torch

    source = model_of("llama", vocab_size=640)
    donor = copy_model(model_of("gpt-neox", vocab_size=700), tmp_path / "donor")
    job = plan(source, donor, init="omp")
    token, (first, second) = int(job.task.alignment.missing[-1]), job.task.alignment.shared[-2:].tolist()

    def twin(tensors: dict[str, Any]) -> None:
        tensors["gpt_neox.embed_in.weight"][token] = tensors["gpt_neox.embed_in.weight"][first]
        tensors["embed_out.weight"][token] = tensors["embed_out.weight"][second]

    tools.rewrite(donor, twin)
    tokswap.transplant_tokenizer(
        str(source), str(donor), out=tmp_path / "out", init="omp", settings={"norm_guard": False}
    )
    old, new = tools.weights(source), tools.weights(tmp_path / "out")
    for name, shared in ((INPUT, first), (HEAD, second)):
        expected = old[name][job.task.alignment.source_of[shared]]
        torch.testing.assert_close(new[name][token], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_hundreds_of_duplicate_anchors_do_not_blow_a_row_up(noise: float, model_of: Make, tmp_path: Path) -> None:
    """400 equal donor rows among the anchors make the norms of its rows 1e8 times too large."""
    import torch

    source = model_of("llama", vocab_size=900)
    donor = copy_model(model_of("gpt2", vocab_size=1200), tmp_path / "donor")
    anchors = plan(source, donor, init="omp").task.alignment.shared[-400:]
    assert len(anchors) == 400

    def repeat(tensors: dict[str, Any]) -> None:
        row = tensors["transformer.wte.weight"][anchors[0]].clone()
        jitter = torch.randn((400, len(row)), generator=torch.Generator().manual_seed(0)) * noise
        tensors["transformer.wte.weight"][anchors] = row + jitter

    tools.rewrite(donor, repeat)
    for guard in (True, False):
        out = tmp_path / f"{guard}"
        tokswap.transplant_tokenizer(str(source), str(donor), out=out, init="omp", settings={"norm_guard": guard})
        largest = tools.weights(source)[INPUT].norm(dim=1).max()
        assert tools.weights(out)[INPUT][computed(out)].norm(dim=1).max() < (1.001 if guard else 30) * largest


def test_k_beyond_the_shared_tokens_or_the_width_works(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    """It crashes where k is larger than the number of shared tokens."""
    source = copy_model(model_of("t5", vocab_size=640), tmp_path / "source")
    spec = read_json(source / "tokenizer.json")
    vocab = spec["model"]["vocab"]
    spec["model"]["vocab"] = [
        *vocab[:4],
        *([("abcdefghij"[n] if n < 10 else chr(0x4E00 + n) * 5), score] for n, (_, score) in enumerate(vocab[4:])),
    ]
    write_json(source / "tokenizer.json", spec)
    donor = str(model_of("gpt2", vocab_size=700))
    for k in (64, 10_000):
        report = tokswap.transplant_tokenizer(str(source), donor, out=tmp_path / f"{k}", init="omp", settings={"k": k})
        assert report.plan.coverage["bytes"] == 10
        assert 1 <= report.rows.diagnostics["input"]["support"].max() <= 10
    wide = tokswap.transplant_tokenizer(
        str(model_of("llama", vocab_size=640)), donor, out=tmp_path / "wide", init="omp", settings={"k": 500}
    )
    assert wide.rows.diagnostics["input"]["support"].max() <= 32  # the width of the donor


def test_a_zero_donor_row_does_not_give_a_zero_row(model_of: Make, tmp_path: Path) -> None:
    """A donor row without a direction is explained by nothing, and its token gets a zero row."""
    source = model_of("llama", vocab_size=640)
    donor = copy_model(model_of("gpt2", vocab_size=700), tmp_path / "donor")
    alignment = plan(source, donor, init="omp").task.alignment
    token, anchor = int(alignment.missing[3]), int(alignment.shared[-3])

    def clear(tensors: dict[str, Any]) -> None:
        tensors["transformer.wte.weight"][[token, anchor]] = 0

    tools.rewrite(donor, clear)
    tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out")
    new, old = tools.weights(tmp_path / "out"), tools.weights(source)
    for name in (INPUT, HEAD):
        assert new[name][token].any()
        assert new[name].isfinite().all()
        # The shared token keeps its own row, whatever the donor has for it.
        assert tools.bits(new[name][anchor]) == tools.bits(old[name][alignment.source_of[anchor]])


# mergekit-tokensurgeon: tensors, configs and files.


def test_padding_rows_of_the_donor_stay(model_of: Make, tmp_path: Path) -> None:
    """It drops 68 of 768 rows, past the 700 ids of the tokenizer, and Qwen's 151,936 with them."""
    donor = model_of("gpt2", vocab_size=700, rows=768)
    tokswap.transplant_tokenizer(str(model_of("llama", vocab_size=640)), str(donor), out=tmp_path / "out")
    model, _ = tools.load(tmp_path / "out", "llama")
    assert model.config.vocab_size == 768
    assert model.get_input_embeddings().weight.shape[0] == model.get_output_embeddings().weight.shape[0] == 768


def test_biases_and_unknown_tensors_are_carried(model_of: Make, tmp_path: Path) -> None:
    """It silently drops `lm_head.bias` and every tensor that its list of architectures does not name."""
    import torch

    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    bias, extra = torch.arange(640.0), torch.randn(5, 7)
    tools.rewrite(
        source, lambda tensors: tensors.update({HEAD.replace("weight", "bias"): bias, "adapter.extra": extra})
    )
    donor = model_of("gpt2", vocab_size=700)
    report = tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out")
    new = tools.weights(tmp_path / "out")
    assert tools.bits(new["adapter.extra"]) == tools.bits(extra)
    copied = report.alignment.shared
    assert new["lm_head.bias"].shape == (700,)
    assert new["lm_head.bias"][copied].tolist() == report.alignment.source_of[copied].tolist()


def test_smollm3_is_not_ambiguous(tokenizer_of: Make, model_of: Make, tmp_path: Path) -> None:
    """It stops at SmolLM3 with "Multiple input embeddings"."""
    import torch
    from transformers import SmolLM3Config, SmolLM3ForCausalLM

    source = copy_model(tokenizer_of("byte-level", vocab_size=640), tmp_path / "source")
    config = SmolLM3Config(
        vocab_size=640,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        SmolLM3ForCausalLM(config).save_pretrained(source)
    tokswap.transplant_tokenizer(str(source), str(model_of("llama", vocab_size=700)), out=tmp_path / "out")
    assert [check for check in tokswap.verify_checkpoint(tmp_path / "out", against=source) if not check.ok] == []


def test_generation_settings_are_written_with_the_new_ids(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    """It writes no generation_config.json; others lose the sampling settings and all eos ids but one."""
    source = copy_model(model_of("llama", vocab_size=640), tmp_path / "source")
    edit_json(source / "generation_config.json", eos_token_id=[1, 4], temperature=0.7, top_k=40, do_sample=True)
    pairs = ["<|reserved_special_token_2|>=<unused0>"]
    target = tokenizer_of("byte-level", vocab_size=700)
    tokswap.transplant_tokenizer(str(source), str(target), out=tmp_path / "out", init="subword", map_tokens=pairs)
    written = read_json(tmp_path / "out" / "generation_config.json")
    assert written["eos_token_id"] == [2, 5]
    assert (written["bos_token_id"], written["pad_token_id"]) == (1, 2)
    assert (written["temperature"], written["top_k"], written["do_sample"]) == (0.7, 40, True)


def test_the_pad_id_is_kept(model_of: Make, tmp_path: Path) -> None:
    """It loses the pad token on the way."""
    from transformers import AutoTokenizer

    source = model_of("llama-tied", vocab_size=640)
    donor = model_of("llama", vocab_size=700)
    tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out")
    assert read_json(tmp_path / "out" / "config.json")["pad_token_id"] == 0
    loaded = AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True)
    assert (loaded.pad_token, loaded.pad_token_id) == ("<pad>", 0)
    assert loaded(["a", "a b c d"], padding=True)["input_ids"][0][-1] == 0


def test_tokens_of_two_families_match_by_what_they_stand_for(model_of: Make, tokenizer_of: Make) -> None:
    """`é` and `Ã©`, `<0x0A>` and `Ċ`, `▁▁` and `ĠĠ` never match there, and a letter matches a byte of its spelling."""
    text = ["un été à côté, é é éé été\n\n  deux  espaces   trois\n" * 40]
    source = model_of("llama", vocab_size=640, seed_text=text)
    target = tokenizer_of("byte-level", vocab_size=600, seed_text=text)
    for one, two in (
        (source, target),
        (
            model_of("gpt2", vocab_size=600, seed_text=text),
            tokenizer_of("sentencepiece", vocab_size=640, seed_text=text),
        ),
    ):
        job = plan(one, two)
        ours, theirs = job.task.source.tokenizer.vocabulary, job.task.target.vocabulary
        found = {theirs.text[n]: ours.text[job.task.alignment.source_of[n]] for n in job.task.alignment.shared}
        byte_level = job.task.target.family == "byte-level BPE"
        for spelling, piece in (("Ã©", "é"), ("Ċ", "<0x0A>"), ("ĠĠ", "▁▁"), ("é", "<0xE9>")):
            expected = (spelling, piece) if byte_level else (piece, spelling)
            assert found[expected[0]] == expected[1]


def test_one_token_with_three_roles_does_not_collapse_them(model_of: Make, tmp_path: Path) -> None:
    """bos == eos == unk in one vocabulary makes the three tokens of the other one and the same."""
    source = copy_model(model_of("gpt2", vocab_size=640), tmp_path / "source")
    same = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    edit_json(source / "tokenizer_config.json", **same)
    for name in ("config.json", "generation_config.json"):
        edit_json(source / name, bos_token_id=0, eos_token_id=0, pad_token_id=0, forced_eos_token_id=0)
    donor = model_of("llama", vocab_size=700)
    report = tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out")
    config = read_json(tmp_path / "out" / "config.json")
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (2, 1, 0)
    assert config["forced_eos_token_id"] == 1
    assert report.alignment.source_of[[0, 1, 2, 3]].tolist() == [0, 0, 0, 0]

    back = tokswap.transplant_tokenizer(str(donor), str(source), out=tmp_path / "back")
    config = read_json(tmp_path / "back" / "config.json")
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (0, 0, 0)
    assert back.alignment.source_of[0] == 1  # eos: the model has never seen a bos at work


@pytest.mark.parametrize("whose", ["source", "donor"])
def test_no_code_of_a_model_is_run(whose: str, model_of: Make, tmp_path: Path) -> None:
    """It trusts remote code always."""
    folders = {
        name: copy_model(model_of(a, vocab_size=640), tmp_path / name)
        for name, a in (("source", "llama"), ("donor", "gpt2"))
    }
    ran = tmp_path / "ran"
    (folders[whose] / "own.py").write_text(f"open({str(ran)!r}, 'w')\n", encoding="utf-8")
    auto_map = dict.fromkeys(("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer"), "own.Own")
    edit_json(folders[whose] / "config.json", auto_map=auto_map)
    edit_json(folders[whose] / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Own", "own.Own"]})
    tokswap.transplant_tokenizer(str(folders["source"]), str(folders["donor"]), out=tmp_path / "out")
    tokswap.verify_checkpoint(tmp_path / "out", against=folders["source"])
    assert not ran.exists()
    edit_json(folders[whose] / "config.json", model_type="own")
    if whose == "source":
        with pytest.raises(InputError) as caught:
            tokswap.transplant_tokenizer(str(folders["source"]), str(folders["donor"]), out=tmp_path / "never")
        assert caught.value.code == "remote-code"
    else:  # of a donor nothing is needed but its embedding matrix
        tokswap.transplant_tokenizer(str(folders["source"]), str(folders["donor"]), out=tmp_path / "again")
    assert not ran.exists()


def test_an_existing_output_is_not_written_into(model_of: Make, tmp_path: Path) -> None:
    """It mixes its files with what is there."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "model-00001-of-00009.safetensors").write_bytes(b"old")
    source, donor = str(model_of("llama", vocab_size=640)), str(model_of("gpt2"))
    with pytest.raises(OutputError) as caught:
        tokswap.transplant_tokenizer(source, donor, out=out)
    assert caught.value.code == "output-exists"
    assert [path.name for path in out.iterdir()] == ["model-00001-of-00009.safetensors"]
    with pytest.raises(OutputError) as caught:
        tokswap.transplant_tokenizer(source, donor, out=out, force=True)
    assert caught.value.code == "not-a-checkpoint"
    (out / "config.json").write_text("{}", encoding="utf-8")
    tokswap.transplant_tokenizer(source, donor, out=out, force=True)
    assert not (out / "model-00001-of-00009.safetensors").exists()


def _all_negative(architecture: str, folder: Path) -> Path:
    """Make every logit of a model negative, so that a zero row or a zero bias would beat all tokens."""

    def change(tensors: dict[str, Any]) -> None:
        if architecture == "gpt2":
            tensors["transformer.ln_f.bias"][0] = 20
            tensors["transformer.wte.weight"][:, 0] = -1
        else:
            tensors["cls.predictions.bias"].sub_(30)

    return tools.rewrite(folder, change)


@pytest.mark.parametrize("architecture", ["gpt2", "bert"])
@pytest.mark.parametrize("method", ["omp", "subword"])
def test_padding_is_never_among_the_likeliest_tokens(
    architecture: str, method: str, model_of: Make, tmp_path: Path
) -> None:
    """Zero rows as padding win wherever all other logits are negative."""
    source = _all_negative(architecture, copy_model(model_of(architecture, vocab_size=640), tmp_path / "source"))
    donor = model_of("llama", vocab_size=700, rows=768)
    report = tokswap.transplant_tokenizer(str(source), str(donor), out=tmp_path / "out", init=method)
    never = report.alignment.neutral
    assert {*range(700, 768)} < set(never.tolist())
    model, _ = tools.load(tmp_path / "out", architecture)
    for prompt in PROMPTS:
        scores = tools.logits(model, tools.encode(tmp_path / "out", prompt))
        assert scores[:, report.alignment.shared].max() < 0
        likeliest = scores.topk(50, dim=-1).indices.unique().numpy()
        assert np.intersect1d(likeliest, never).tolist() == []


# transplant-vocab and TokenAdapt.


def test_no_model_is_loaded(model_of: Make, tmp_path: Path) -> None:
    """It loads two whole models to change one matrix. tokswap asks for the names of the weights alone."""
    source, donor = model_of("llama", vocab_size=640), model_of("gpt2")
    code = f"""
import tokswap, transformers
load, devices = transformers.PreTrainedModel.from_pretrained.__func__, []

def noted(cls, *given, **named):
    devices.append(named.get("device_map"))
    return load(cls, *given, **named)

transformers.PreTrainedModel.from_pretrained = classmethod(noted)
tokswap.transplant_tokenizer({str(source)!r}, {str(donor)!r}, out={str(tmp_path / "out")!r})
assert set(devices) == {{"meta"}}, devices
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("tied", [True, False])
def test_bfloat16_stays_bfloat16_and_tied_stays_tied(tied: bool, model_of: Make, tmp_path: Path) -> None:
    """It writes float32 on a machine without a GPU, and unties every model."""
    import torch

    source = model_of("llama-tied" if tied else "llama", vocab_size=640, dtype="bfloat16")
    tokswap.transplant_tokenizer(str(source), str(model_of("gpt2", vocab_size=700)), out=tmp_path / "out")
    assert {tensor.dtype for tensor in tools.weights(tmp_path / "out").values()} == {torch.bfloat16}
    config = read_json(tmp_path / "out" / "config.json")
    assert config["tie_word_embeddings"] is tied
    assert config["dtype"] == "bfloat16"
    assert (HEAD in tools.weights(tmp_path / "out")) is not tied


def test_partial_characters_keep_their_bytes(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    """A token that is part of a character becomes U+FFFD there, and all of them get the same row."""
    import torch

    source = model_of("llama", vocab_size=640)
    target = copy_model(tokenizer_of("byte-level", vocab_size=700), tmp_path / "t")
    spec = read_json(target / "tokenizer.json")
    first, second = (tools.encode(target, text) for text in ("橋", "駅"))
    names = {n: token for token, n in spec["model"]["vocab"].items()}
    tokens = [names[ids[0]] + names[ids[1]] for ids in (first, second)]
    assert all(len(token) == 2 and token not in spec["model"]["vocab"] for token in tokens)
    size = makers.tokenizer_size(target)
    spec["model"]["vocab"] |= {token: size + n for n, token in enumerate(tokens)}
    spec["model"]["merges"] += [[token[0], token[1]] for token in tokens]
    write_json(target / "tokenizer.json", spec)

    job = plan(source, target, out=tmp_path / "out")
    assert [job.task.target.vocabulary.token_bytes[size + n] for n in (0, 1)] == [text.encode()[:2] for text in "橋駅"]
    job.run()
    pieces = [[f"<0x{byte:02X}>" for byte in text.encode()[:2]] for text in "橋駅"]
    ids = [[job.task.source.tokenizer.vocabulary.id_of_text[piece] for piece in pair] for pair in pieces]
    old, new = tools.weights(source), tools.weights(tmp_path / "out")
    for name in (INPUT, HEAD):
        for n, pair in enumerate(ids):
            torch.testing.assert_close(new[name][size + n], old[name][pair].mean(dim=0))


def test_a_mapped_token_gets_the_row_that_was_named(model_of: Make, tokenizer_of: Make, tmp_path: Path) -> None:
    """Overrides by hand all end in the row of a line break."""
    source, target = model_of("llama", vocab_size=640), tokenizer_of("byte-level", vocab_size=700)
    pairs = ["<|reserved_special_token_0|>=▁the", "<|reserved_special_token_1|>=<unused2>", "Ċ=▁a"]
    tokswap.transplant_tokenizer(str(source), str(target), out=tmp_path / "out", init="subword", map_tokens=pairs)
    ids = read_json(source / "tokenizer.json")["model"]["vocab"]
    new_ids = read_json(target / "tokenizer.json")["model"]["vocab"]
    old, new = tools.weights(source), tools.weights(tmp_path / "out")
    for token, piece in ((3, "▁the"), (4, "<unused2>"), (new_ids["Ċ"], "▁a")):
        assert tools.bits(new[INPUT][token]) == tools.bits(old[INPUT][ids[piece]])
        assert tools.bits(new[HEAD][token]) == tools.bits(old[HEAD][ids[piece]])


def test_a_local_model_needs_no_login_and_no_network(
    model_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TokenAdapt writes to the hub only, and asks for a token before it starts."""
    import socket

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("something reached for the network")

    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    tokswap.transplant_tokenizer(str(model_of("llama", vocab_size=640)), str(model_of("gpt2")), out=tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()
