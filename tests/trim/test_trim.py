"""Trims end to end: the vocabulary matrices and ids of every architecture, the reloaded model, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import numpy as np
import pytest
import tools
from click.testing import CliRunner

import tokswap
from tokswap.checkpoint.reader import open_checkpoint
from tokswap.cli import main
from tokswap.errors import InputError, OutputError, TokswapError, UsageError
from tokswap.evaluation.verify import verify_checkpoint
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer
from tokswap.trim import run
from tokswap.trim.outputs import aligned
from tokswap.trim.plan import plan_trim, trim_vocabulary

GERMAN = makers.TEXTS / "german.txt"
SIZES = {"vocab_size": 900}


def new_ids(folder: Path) -> dict[int, int]:
    return {int(old): new for old, new in makers.read_json(folder / "vocab_map.json")["new_id_of"].items()}


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def trimmed_of(
    model_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[Path, Path, Any]]:
    """Return (source, result, report) of a model that is trimmed to German, once for all tests."""
    done: dict[str, tuple[Path, Path, Any]] = {}

    def find(architecture: str, **options: Any) -> tuple[Path, Path, Any]:
        key = repr((architecture, sorted(options.items())))
        if key not in done:
            source = model_of(architecture, **SIZES, **options)
            out = tmp_path_factory.mktemp("trim") / "out"
            done[key] = source, out, trim_vocabulary(str(source), corpora=[str(GERMAN)], out=out)
        return done[key]

    return find


@pytest.mark.parametrize("architecture", makers.ARCHITECTURES)
def test_matrices_and_outputs_are_those_of_the_source(
    trimmed_of: Callable[..., tuple[Path, Path, Any]], architecture: str
) -> None:
    source, out, report = trimmed_of(architecture)
    before, after = tools.weights(source), tools.weights(out)
    new_of = new_ids(out)
    old = sorted(new_of, key=new_of.__getitem__)
    assert 100 < len(old) < makers.tokenizer_size(source)
    for name, tensor in before.items():
        if name in tools.matrices_of(architecture):
            rows = tensor[..., old] if tensor.dim() == 1 or tensor.shape[0] == 1 else tensor[old]
            assert tools.bits(after[name]) == tools.bits(rows), name
        else:
            assert tools.bits(after[name]) == tools.bits(tensor), name
    assert before.keys() == after.keys()
    text = max(GERMAN.read_text("utf-8").splitlines(), key=len)[:200]
    ids = tools.encode(source, text)
    assert tools.encode(out, text) == [new_of[token] for token in ids]
    (model, _), (small, info) = tools.load(source, architecture), tools.load(out, architecture)
    assert not info["missing_keys"]
    want, got = tools.logits(model, ids), tools.logits(small, [new_of[token] for token in ids])
    np.testing.assert_allclose(got.numpy(), want[:, old].numpy(), atol=1e-5)
    checks = report.checks
    assert checks["failed"] == []
    assert checks["corpus"]["exact"] == checks["corpus"]["kept"] > 10
    assert checks["corpus"]["tokens_kept"] == 1
    assert checks["reloaded"]["exact"] == checks["reloaded"]["pieces"] > 3
    assert checks["model"]["hidden_states_equal"]
    assert checks["model"]["logit_difference"] < 1e-4
    # AutoTokenizer has its own class for qwen2, which tokenizes numbers differently. The result loads like the source.
    wrong = {check.name for check in verify_checkpoint(source) if not check.ok}
    assert wrong <= ({"AutoTokenizer"} if architecture == "qwen2" else set())
    assert {check.name for check in verify_checkpoint(out, against=source) if not check.ok} <= wrong


@pytest.mark.parametrize("architecture", makers.ARCHITECTURES)
def test_config_ids_name_the_same_tokens(trimmed_of: Callable[..., tuple[Path, Path, Any]], architecture: str) -> None:
    source, out, _ = trimmed_of(architecture)
    new_of = new_ids(out)
    for name in ("config.json", "generation_config.json"):
        if not (source / name).is_file():
            assert not (out / name).is_file()
            continue
        before, after = makers.read_json(source / name), makers.read_json(out / name)
        ids = {key for key in before if key.endswith("_token_id")}
        assert {key: after[key] for key in ids} == {
            key: None if before[key] is None else new_of[before[key]] for key in ids
        }
        rest = {key: value for key, value in before.items() if key not in {*ids, "vocab_size"}}
        assert {key: value for key, value in after.items() if key not in {*ids, "vocab_size"}} == rest
    assert makers.read_json(out / "config.json")["vocab_size"] == len(new_of)


def test_ids_at_every_level_follow(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source = makers.copy_model(model_of("llama", **SIZES), tmp_path / "source")
    rows = makers.read_json(source / "config.json")["vocab_size"]
    tokenizer = read_tokenizer(source)
    word = tokenizer.encode("Brücke")[0]
    makers.edit_json(source / "config.json", text_config={"vocab_size": rows, "image_token_index": 7}, boi_token_id=8)
    makers.edit_json(
        source / "generation_config.json",
        eos_token_id=[1, 9],
        suppress_tokens=[word, 333],
        bad_words_ids=[[word], [333, 334]],
        sequence_bias=[[[word], -2.0], [[word, 333], 1.0]],
        force_words_ids=[[word], [[word], [333]], [333]],
        forced_decoder_ids=[[1, 5]],
        lang_to_id={"<|de|>": 6},
    )
    trim_vocabulary(
        str(source),
        keep_tokens=["Brücke"[:1]],
        corpora=[write(tmp_path / "t.txt", "Brücke")],
        out=tmp_path / "out",
        check="tokens",
    )
    new_of = new_ids(tmp_path / "out")
    config, generation = (
        makers.read_json(tmp_path / "out" / name) for name in ("config.json", "generation_config.json")
    )
    assert 333 not in new_of
    assert config["text_config"] == {"vocab_size": len(new_of), "image_token_index": new_of[7]}
    assert config["boi_token_id"] == new_of[8]
    assert generation["eos_token_id"] == [new_of[1], new_of[9]]
    assert generation["suppress_tokens"] == [new_of[word]]
    assert generation["bad_words_ids"] == [[new_of[word]]]
    assert generation["sequence_bias"] == [[[new_of[word]], -2.0]]
    assert generation["force_words_ids"] == [[new_of[word]], [[new_of[word]]]]
    assert generation["forced_decoder_ids"] == [[1, new_of[5]]]
    assert generation["lang_to_id"] == {"<|de|>": new_of[6]}


def test_configs_go_on_naming_what_they_named(model_of: Callable[..., Path], tmp_path: Path) -> None:
    """A trim does not correct a config that disagrees with its tokenizer: the result behaves like the source."""
    source = makers.copy_model(model_of("llama", **SIZES), tmp_path / "source")
    makers.edit_json(source / "config.json", pad_token_id=12, bos_token_id=None)
    makers.edit_json(source / "generation_config.json", pad_token_id=12, bos_token_id=None)
    trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out", check="tokens")
    config = makers.read_json(tmp_path / "out" / "config.json")
    assert config["bos_token_id"] is None
    assert config["pad_token_id"] == new_ids(tmp_path / "out")[12]


@pytest.mark.parametrize("multiple", [None, 64])
def test_padded_rows(model_of: Callable[..., Path], tmp_path: Path, multiple: int | None) -> None:
    """Padding rows of the source go, except those that the config names; padding to a multiple copies them."""
    source = makers.copy_model(model_of("qwen2", rows=960, **SIZES), tmp_path / "source")
    makers.edit_json(source / "config.json", image_token_id=955)
    trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out", pad_to_multiple=multiple)
    new_of = new_ids(tmp_path / "out")
    config = makers.read_json(tmp_path / "out" / "config.json")
    tokens = makers.tokenizer_size(tmp_path / "out")
    assert config["image_token_id"] == new_of[955] == tokens
    before, after = tools.weights(source), tools.weights(tmp_path / "out")
    name = "model.embed_tokens.weight"
    assert tools.bits(after[name][tokens]) == tools.bits(before[name][955])
    rows = tokens + 1 if multiple is None else -(-(tokens + 1) // multiple) * multiple
    assert config["vocab_size"] == len(after[name]) == len(after["lm_head.weight"]) == rows
    for row in range(tokens + 1, rows):
        assert tools.bits(after[name][row]) in {tools.bits(before[name][old]) for old in range(900, 960)}


def test_padding_where_the_source_has_none(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source = model_of("llama", **SIZES)
    report = trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out", pad_to_multiple=512)
    assert report.plan.coverage["padding"] > 0
    assert makers.read_json(tmp_path / "out" / "config.json")["vocab_size"] == 512
    assert [check for check in verify_checkpoint(tmp_path / "out", against=source) if not check.ok] == []


def test_per_layer_matrices_follow(model_of: Callable[..., Path], tmp_path: Path) -> None:
    import torch

    source = makers.copy_model(model_of("llama", **SIZES), tmp_path / "source")
    rows = makers.read_json(source / "config.json")["vocab_size"]
    matrix = torch.randn(rows - 3, 16)
    tools.rewrite(source, lambda tensors: tensors.update({"model.embed_tokens_per_layer.weight": matrix}))
    makers.edit_json(source / "config.json", vocab_size_per_layer_input=rows - 3)
    trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out", check="tokens")
    after = tools.weights(tmp_path / "out")["model.embed_tokens_per_layer.weight"]
    new_of = new_ids(tmp_path / "out")
    assert makers.read_json(tmp_path / "out" / "config.json")["vocab_size_per_layer_input"] == len(after) == len(new_of)
    for old, new in new_of.items():
        assert tools.bits(after[new]) == tools.bits(matrix[old if old < len(matrix) else 0])


def test_matrices_of_integers_follow(model_of: Callable[..., Path], tmp_path: Path) -> None:
    """No method can compute padding rows there, so they copy the row of id 0."""
    import torch

    source = makers.copy_model(model_of("llama", **SIZES), tmp_path / "source")
    name = "model.layers.0.ffn.gate.tid2eid"
    matrix = torch.randint(64, (makers.read_json(source / "config.json")["vocab_size"], 6))
    tools.rewrite(source, lambda tensors: tensors.update({name: matrix}))
    trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out", check="tokens", pad_to_multiple=64)
    after, new_of = tools.weights(tmp_path / "out")[name], new_ids(tmp_path / "out")
    assert len(after) % 64 == 0
    assert len(after) > len(new_of)
    assert {new: after[new].tolist() for new in new_of.values()} == {
        new: matrix[old].tolist() for old, new in new_of.items()
    }
    assert all(row == matrix[0].tolist() for row in after[len(new_of) :].tolist())


def test_a_model_that_needs_more_than_text(model_of: Callable[..., Path], tmp_path: Path) -> None:
    """A model that needs more than tokens is trimmed, and the report says that its outputs were not compared."""
    from transformers import LlamaForCausalLM

    def forward(self: object, input_ids: object = None, **inputs: object) -> None:
        raise ValueError("You must specify exactly one of input_features or encoder_inputs_embeds")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LlamaForCausalLM, "forward", forward)
        report = trim_vocabulary(str(model_of("llama", **SIZES)), corpora=[str(GERMAN)], out=tmp_path / "out")
        assert "input_features" in report.checks["not_compared"]["reason"]
        assert "model" not in report.checks
        error = refused(tmp_path, model_of("llama", **SIZES), "cannot-run", InputError, check="full")
        assert "input_features" in error.message
        assert "--check tokens" in error.hint


def test_a_body_that_cannot_be_loaded_here(model_of: Callable[..., Path], tmp_path: Path) -> None:
    """The package that a quantised body needs may be missing where its vocabulary is trimmed."""
    source = makers.copy_model(model_of("llama", **SIZES), tmp_path / "source")
    makers.edit_json(source / "config.json", quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})
    report = trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out")
    assert "cannot be loaded" in report.checks["not_compared"]["reason"]


@pytest.mark.parametrize("name", ["BertForTokenClassification", "BertForSequenceClassification"])
def test_a_classifier(model_of: Callable[..., Path], tmp_path: Path, name: str) -> None:
    """The logits of a token classifier have a place for each label, not for each token."""
    import transformers

    source = makers.copy_model(model_of("bert", **SIZES), tmp_path / "source")
    getattr(transformers, name).from_pretrained(source, local_files_only=True).save_pretrained(source)
    report = trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out")
    assert report.checks["model"]["hidden_states_equal"]
    assert "logit_difference" not in report.checks["model"]


def test_logits_of_another_vocabulary(tmp_path: Path, model_of: Callable[..., Path]) -> None:
    """A head of labels or units of sound (Higgs) may have more rows than there are tokens."""
    import transformers

    source = makers.copy_model(model_of("bert", **SIZES), tmp_path / "source")
    transformers.BertForTokenClassification.from_pretrained(source, num_labels=2000).save_pretrained(source)
    report = trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out")
    assert report.checks["model"]["hidden_states_equal"]
    assert "logit_difference" not in report.checks["model"]


def test_the_decoder_of_a_model_that_hears(tmp_path: Path) -> None:
    """The encoder reads sound, so only the decoder is compared."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    source = makers.make_tokenizer("byte-level", tmp_path / "source")
    config = WhisperConfig(
        vocab_size=makers.tokenizer_size(source),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    WhisperForConditionalGeneration(config).save_pretrained(source)
    report = trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out")
    assert report.checks["model"]["hidden_states_equal"]
    assert report.checks["model"]["logit_difference"] < 1e-4


@pytest.mark.parametrize("kind", ["CLIP", "Siglip"])
def test_the_text_tower_of_a_model_that_sees(tmp_path: Path, kind: str) -> None:
    """The whole model needs an image; its text tower is compared, by verify too. A second tokenizer stays."""
    import transformers

    source = makers.make_tokenizer("byte-level", tmp_path / "source", adds_bos=True)
    makers.make_tokenizer("wordpiece", source / "qformer_tokenizer")
    both = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {"vocab_size": makers.tokenizer_size(source), "max_position_embeddings": 32}
    text |= {f"{role}_token_id": token for role, token in makers.role_ids(source).items()}
    vision = {"image_size": 32, "patch_size": 16, **both}
    config = getattr(transformers, f"{kind}Config")(text_config={**text, **both}, vision_config=vision)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(source)
    report = trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out")
    assert report.checks["model"]["hidden_states_equal"]
    assert [check for check in verify_checkpoint(str(tmp_path / "out"), against=str(source)) if not check.ok] == []
    assert (tmp_path / "out" / "qformer_tokenizer" / "tokenizer.json").is_file()


def test_models_are_compared_in_memory_that_begins_alike() -> None:
    """Otherwise the same weights, mapped from two files, can give sums that differ in their last bits."""
    import torch

    model = torch.nn.ModuleList([torch.nn.Linear(24, 24), torch.nn.Linear(24, 24)])
    model[1].weight = model[0].weight
    store = torch.arange(24 * 24 + 1, dtype=torch.float32)
    model[0].weight.data = store[1:].view(24, 24)
    model.register_buffer("buffer", store[3:7])
    assert model[0].weight.data_ptr() % 64
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert aligned(model) is model
    assert [t.data_ptr() % 64 for t in (*model.parameters(), *model.buffers())] == [0] * 4
    assert model[1].weight is model[0].weight
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_an_encoder_without_a_head(model_of: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import BertModel

    source = makers.copy_model(model_of("bert", **SIZES), tmp_path / "source")
    BertModel.from_pretrained(source, local_files_only=True).save_pretrained(source)
    report = trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out")
    assert report.checks["model"]["hidden_states_equal"]
    assert "logit_difference" not in report.checks["model"]
    assert report.checks["failed"] == []


def test_a_unigram_masked_model_that_was_trained(tmp_path: Path) -> None:
    """Like XLM-R: it still predicts what it has learnt, with the kept tokens alone."""
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    source = makers.make_tokenizer("unigram", tmp_path / "source", vocab_size=900, adds_bos=True)
    spec = makers.read_json(source / "tokenizer.json")
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": len(spec["model"]["vocab"]), "content": "<mask>"})
    makers.write_json(source / "tokenizer.json", spec)
    makers.edit_json(source / "tokenizer_config.json", mask_token="<mask>")
    rows = makers.tokenizer_size(source)
    config = XLMRobertaConfig(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=130,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    model = XLMRobertaForMaskedLM(config)
    tokenizer = read_tokenizer(source)
    lines = [tokenizer.backend.encode(line).ids[:100] for line in GERMAN.read_text("utf-8").splitlines() if line]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(60):
        ids = torch.tensor([lines[step % len(lines)]])
        masked = ids.clone()
        masked[0, 2::5] = rows - 1
        loss = model(input_ids=masked, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval().save_pretrained(source)
    assert float(model.lm_head.bias.detach().abs().max()) > 0.01
    report = trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out")
    checks = report.checks
    assert checks["failed"] == []
    assert checks["corpus"]["exact"] == checks["corpus"]["kept"] > 10
    assert checks["corpus"]["tokens_kept"] == 1
    assert checks["model"]["hidden_states_equal"]
    assert checks["model"]["argmax_agreement"] == 1
    assert makers.role_ids(tmp_path / "out") == {
        "bos": 0,
        "pad": 1,
        "eos": 2,
        "unk": 3,
        "mask": len(new_ids(tmp_path / "out")) - 1,
    }
    assert [check for check in verify_checkpoint(tmp_path / "out", against=source) if not check.ok] == []


@pytest.mark.parametrize("kind", ["gpt2", "roberta", "bart", "opt"])
def test_models_of_few_positions(kind: str, tmp_path: Path) -> None:
    """The sequences that both models run on are no longer than the models read."""
    import transformers as library

    source = makers.make_tokenizer("byte-level", tmp_path / "source", vocab_size=700)
    rows, heads = makers.tokenizer_size(source), {"num_attention_heads": 2, "num_hidden_layers": 1}
    sides = {f"{side}_{key}": 2 for side in ("encoder", "decoder") for key in ("layers", "attention_heads")}
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    model = {
        "gpt2": lambda: library.GPT2LMHeadModel(
            library.GPT2Config(vocab_size=rows, n_positions=64, n_embd=8, n_head=2, n_layer=1, **ids)
        ),
        "roberta": lambda: library.RobertaForMaskedLM(
            library.RobertaConfig(
                vocab_size=rows, hidden_size=8, intermediate_size=8, max_position_embeddings=40, **heads, **ids
            )
        ),
        "bart": lambda: library.BartForConditionalGeneration(
            library.BartConfig(
                vocab_size=rows,
                d_model=8,
                encoder_ffn_dim=8,
                decoder_ffn_dim=8,
                max_position_embeddings=32,
                forced_eos_token_id=2,
                **sides,
                **ids,
            )
        ),
        "opt": lambda: library.OPTForCausalLM(
            library.OPTConfig(
                vocab_size=rows,
                hidden_size=8,
                ffn_dim=8,
                word_embed_proj_dim=8,
                max_position_embeddings=16,
                **heads,
                **ids,
            )
        ),
    }[kind]()
    model.eval().save_pretrained(source)
    report = trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out")
    assert report.checks["model"]["hidden_states_equal"]
    assert report.checks["model"]["tokens"] > 8


def test_the_chat_template_writes_the_same_tokens(
    trimmed_of: Callable[..., tuple[Path, Path, Any]], model_of: Callable[..., Path], tmp_path: Path
) -> None:
    source = model_of("llama-tied", chat_template=makers.CHAT_TEMPLATE, **SIZES)
    report = trim_vocabulary(str(source), corpora=[str(makers.TEXTS / "japanese.txt")], out=tmp_path / "out")
    chats = report.checks["reloaded"]
    assert chats["chats"] == chats["chats_equal"] >= 6
    tokenizer = read_tokenizer(source)
    new_of = new_ids(tmp_path / "out")
    assert set(tokenizer.encode("<|im_start|>assistant\n")) <= new_of.keys()


def test_shards_and_links(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source = model_of("llama", shards=4, dtype="bfloat16", **SIZES)
    trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out", link=True)
    index = makers.read_json(tmp_path / "out" / "model.safetensors.index.json")
    assert index["metadata"]["total_size"] == sum(
        t.numel() * t.element_size() for t in tools.weights(tmp_path / "out").values()
    )
    assert any(path.stat().st_nlink > 1 for path in (tmp_path / "out").glob("*.safetensors"))


# Sizes.


@pytest.mark.parametrize("architecture", ["llama", "llama-tied", "bert", "t5"])
def test_every_target_size_is_met(model_of: Callable[..., Path], tmp_path: Path, architecture: str) -> None:
    source = model_of(architecture, **SIZES)
    free = plan_trim(str(source), corpora=[str(GERMAN)], out=tmp_path / "out")
    most, least = len(free.task.alignment), free.plan.counted.least
    for size in (least, (least + most) // 2, most - 1, most):
        report = trim_vocabulary(
            str(source), corpora=[str(GERMAN)], target_size=size, out=tmp_path / "out", force=True, check="tokens"
        )
        assert size - 1 <= len(report.alignment) <= size
        assert report.checks["failed"] == []
    with pytest.raises(InputError) as caught:
        plan_trim(str(source), corpora=[str(GERMAN)], target_size=least - 1, out=tmp_path / "small")
    assert caught.value.code == "target-too-small"
    assert f"{least:,}" in str(caught.value)
    padded = plan_trim(
        str(source), corpora=[str(GERMAN)], target_size=least + 40, pad_to_multiple=16, out=tmp_path / "other"
    )
    assert len(padded.task.alignment) <= least + 40
    assert len(padded.task.alignment) % 16 == 0


def test_more_rows_than_tokens_occur(model_of: Callable[..., Path], tmp_path: Path) -> None:
    job = plan_trim(str(model_of("llama", **SIZES)), corpora=[str(GERMAN)], target_size=899, out=tmp_path / "out")
    assert any("fewer than asked for" in note for note in job.plan.notes)


# What is refused; then nothing is written.


def refused(tmp_path: Path, source: Path, code: str, kind: type[TokswapError], **options: Any) -> TokswapError:
    before = tools.snapshot(source)
    with pytest.raises(kind) as caught:
        trim_vocabulary(str(source), out=tmp_path / "result" / "out", **{"corpora": [str(GERMAN)], **options})
    assert caught.value.code == code
    assert tools.snapshot(source) == before
    assert not (tmp_path / "result").exists() or list((tmp_path / "result").iterdir()) == []
    return caught.value


REFUSALS: dict[str, tuple[type[TokswapError], dict[str, Any]]] = {
    "nothing-to-keep": (UsageError, {"corpora": []}),
    "missing-corpus": (InputError, {"corpora": ["no-such-file.txt"]}),
    "bad-minimum": (UsageError, {"min_count": 0}),
    "bad-coverage": (UsageError, {"coverage": 1.5}),
    "bad-target-size": (UsageError, {"target_size": 0}),
    "target-too-small": (InputError, {"target_size": 5}),
    "unknown-language": (UsageError, {"languages": ["germn"]}),
    "unknown-script": (UsageError, {"scripts": ["Latn"]}),
    "unknown-token": (UsageError, {"keep_tokens": ["<|no_such|>"]}),
    "needed-token": (UsageError, {"drop_tokens": ["<eos>"]}),
    "bad-like": (UsageError, {"like": "x"}),
    "bad-check": (UsageError, {"check": "all"}),
    "bad-vocab-size": (UsageError, {"pad_to_multiple": 0}),
    "bad-device": (UsageError, {"device": "nonsense"}),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_wrong_requests(code: str, model_of: Callable[..., Path], tmp_path: Path) -> None:
    kind, options = REFUSALS[code]
    refused(tmp_path, model_of("llama", **SIZES), code, kind, **options)


@tools.needs_release_5  # its extra_special_tokens may be a list
def test_tokens_that_something_needs_cannot_be_dropped(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source = makers.copy_model(model_of("llama-tied", chat_template=makers.CHAT_TEMPLATE, **SIZES), tmp_path / "source")
    makers.edit_json(source / "config.json", image_token_id=5)
    five = read_tokenizer(source).vocabulary.text[5]
    for token, reason in (("<|im_end|>", "token"), (five, "config"), ("Ġ", "spell")):
        error = refused(tmp_path, source, "needed-token", UsageError, drop_tokens=[token])
        assert reason in error.message
    makers.edit_json(source / "tokenizer_config.json", extra_special_tokens=["<|endoftext|>", "<|im_start|>"])
    makers.write_json(source / "special_tokens_map.json", {"additional_special_tokens": ["<|endoftext|>"]})
    report = trim_vocabulary(
        str(source), corpora=[str(GERMAN)], drop_tokens=["<|endoftext|>"], out=tmp_path / "out", check="tokens"
    )
    assert makers.read_json(tmp_path / "out" / "tokenizer_config.json")["extra_special_tokens"] == ["<|im_start|>"]
    assert report.checks["failed"] == []
    assert "<|endoftext|>" not in read_tokenizer(tmp_path / "out").vocabulary.id_of_text


@pytest.mark.parametrize("content", [b"", b" \n\n \t"])
def test_empty_corpora(content: bytes, model_of: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(content)
    refused(tmp_path, model_of("llama", **SIZES), "empty-corpus", InputError, corpora=[str(tmp_path / "empty.txt")])


def test_unreadable_texts(model_of: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("Straße\n".encode("latin-1") * 9)
    error = refused(tmp_path, model_of("llama", **SIZES), "bad-text", InputError, corpora=[str(tmp_path / "latin.txt")])
    assert "latin.txt" in str(error)


def test_quantised_matrices(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source = makers.copy_model(model_of("llama", **SIZES), tmp_path / "source")
    tools.rewrite(source, lambda tensors: tensors.update({"lm_head.weight": tensors["lm_head.weight"].char()}))
    refused(tmp_path, source, "quantised-table", InputError)


def test_unsupported_tokenizers(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source = makers.copy_model(model_of("llama", **SIZES), tmp_path / "source")
    spec = makers.read_json(source / "tokenizer.json")
    model = {"type": "WordLevel", "vocab": spec["model"]["vocab"], "unk_token": "<unk>"}
    makers.write_json(source / "tokenizer.json", {**spec, "model": model})
    refused(tmp_path, source, "unsupported-tokenizer", InputError)


def test_ids_past_the_last_row(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source = makers.copy_model(model_of("llama", **SIZES), tmp_path / "source")
    makers.edit_json(source / "config.json", image_token_id=5000)
    job = plan_trim(str(source), corpora=[str(GERMAN)], out=tmp_path / "out")
    assert any("5,000" in note and "image_token_id" in note for note in job.plan.notes)


def test_a_tokenizer_that_is_too_large(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source = makers.copy_model(model_of("llama", **SIZES), tmp_path / "source")
    makers.make_tokenizer("sentencepiece", source, vocab_size=1000)
    refused(tmp_path, source, "source-too-small", InputError)


def test_outputs_in_the_way(model_of: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(OutputError) as caught:
        plan_trim(
            str(model_of("llama", **SIZES)), corpora=["nothing is counted before this is known"], out=tmp_path / "out"
        )
    assert caught.value.code == "output-exists"


def test_an_inexact_result_is_never_written(
    model_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check behind the proof finds a closure that forgets parts before a file is written."""
    from tokswap.trim import bpe

    monkeypatch.setattr(bpe, "parts_of", lambda model, ids: dict.fromkeys(ids, ()))
    refused(tmp_path, model_of("llama-tied", **SIZES), "not-exact", OutputError)


def test_a_corpus_in_the_wrong_language_is_named(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source = str(model_of("llama", **SIZES))
    wrong = plan_trim(source, corpora=[str(makers.TEXTS / "russian.txt")], languages=["de"], out=tmp_path / "out")
    note = next(note for note in wrong.plan.notes if "another language" in note)
    assert "russian.txt" in note
    assert "%" in note
    right = plan_trim(source, corpora=[str(GERMAN)], languages=["de"], out=tmp_path / "out")
    assert not any("another language" in note for note in right.plan.notes)


# Following another trim.


def test_a_draft_follows_the_trim_of_its_target(
    trimmed_of: Callable[..., tuple[Path, Path, Any]], model_of: Callable[..., Path], tmp_path: Path
) -> None:
    _, big, _ = trimmed_of("llama")
    small = model_of("llama", seed=7, dtype="bfloat16", **SIZES)
    report = trim_vocabulary(str(small), like=big, out=tmp_path / "out")
    assert report.checks["failed"] == []
    assert makers.read_json(tmp_path / "out" / "tokenizer.json") == makers.read_json(big / "tokenizer.json")
    assert new_ids(tmp_path / "out") == new_ids(big)


def test_only_models_with_the_same_tokenizer_follow(
    trimmed_of: Callable[..., tuple[Path, Path, Any]], model_of: Callable[..., Path], tmp_path: Path
) -> None:
    _, big, _ = trimmed_of("llama")
    refused(tmp_path, model_of("llama-tied", **SIZES), "not-alike", InputError, corpora=[], like=str(big))
    refused(
        tmp_path,
        model_of("llama", **SIZES),
        "missing-map",
        InputError,
        corpora=[],
        like=str(model_of("llama", **SIZES)),
    )


def adapter(source: Path, folder: Path, **settings: Any) -> Path:
    import torch
    from safetensors.torch import save_file

    rows = makers.read_json(source / "config.json")["vocab_size"]
    folder.mkdir()
    makers.write_json(folder / "adapter_config.json", {"peft_type": "LORA", "r": 4, **settings})
    tensors = {
        "base_model.model.model.embed_tokens.lora_embedding_A": torch.randn(4, rows),
        "base_model.model.model.embed_tokens.lora_embedding_B": torch.randn(32, 4),
        "base_model.model.lm_head.lora_A.weight": torch.randn(4, 32),
        "base_model.model.lm_head.lora_B.weight": torch.randn(rows, 4),
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight": torch.randn(32, 4),
        "base_model.model.lm_head.modules_to_save.weight": torch.randn(rows, 32),
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def test_adapters_follow(trimmed_of: Callable[..., tuple[Path, Path, Any]], tmp_path: Path) -> None:
    source, big, _ = trimmed_of("llama")
    folder = adapter(source, tmp_path / "lora", trainable_token_indices={"embed_tokens": [1, 2]})
    result = CliRunner().invoke(
        main, ["trim", "--model", str(folder), "--like", str(big), "--out", str(tmp_path / "small")]
    )
    assert result.exit_code == 0, result.output
    before, after = tools.weights(folder), tools.weights(tmp_path / "small")
    new_of = new_ids(big)
    old = sorted(new_of, key=new_of.__getitem__)
    for name, tensor in before.items():
        want = tensor[:, old] if "lora_embedding_A" in name else tensor[old] if tensor.shape[0] > 32 else tensor
        assert tools.bits(after[name]) == tools.bits(want), name
    settings = makers.read_json(tmp_path / "small" / "adapter_config.json")
    assert settings["trainable_token_indices"] == {"embed_tokens": [new_of[1], new_of[2]]}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft's own
@pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers. to:UserWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": []}},
    ],
    ids=["factors", "whole matrices", "single rows"],
)
def test_adapters_of_peft_compute_the_same(
    trimmed_of: Callable[..., tuple[Path, Path, Any]], tmp_path: Path, settings: dict[str, Any]
) -> None:
    """peft reads an adapter of its own again, on the trimmed model, and the adapter changes the outputs as before."""
    import peft
    import torch

    source, big, _ = trimmed_of("llama")
    new_of = new_ids(big)
    if "trainable_token_indices" in settings:
        settings = {**settings, "trainable_token_indices": {"embed_tokens": sorted(new_of)[40:38:-1]}}
    tuned = peft.get_peft_model(tools.load(source, "llama")[0], peft.LoraConfig(r=4, **settings))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(0.5 * torch.randn_like(parameter))
    tuned.save_pretrained(tmp_path / "lora")
    run = ["trim", "--model", str(tmp_path / "lora"), "--like", str(big), "--out", str(tmp_path / "small")]
    assert CliRunner().invoke(main, run).exit_code == 0
    follower = peft.PeftModel.from_pretrained(tools.load(big, "llama")[0], str(tmp_path / "small"))
    old = sorted(new_of)[30:60]
    with torch.inference_mode():
        before = tuned.eval()(torch.tensor([old])).logits[0][:, sorted(new_of)]
        after = follower.eval()(torch.tensor([[new_of[token] for token in old]])).logits[0]
        plain = tools.load(source, "llama")[0](torch.tensor([old])).logits[0][:, sorted(new_of)]
    after = after[:, [new_of[token] for token in sorted(new_of)]]
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
    assert (plain - before).abs().max() > 0.01


def test_adapters_that_cannot_follow(trimmed_of: Callable[..., tuple[Path, Path, Any]], tmp_path: Path) -> None:
    source, big, _ = trimmed_of("llama")
    gone = next(token for token in range(899, 0, -1) if token not in new_ids(big))
    folder = adapter(source, tmp_path / "lora", trainable_token_indices=[gone])
    run = ["trim", "--model", str(folder), "--out", str(tmp_path / "small")]
    result = CliRunner().invoke(main, [*run, "--like", str(big), "--json"])
    assert result.exit_code == 1
    assert '"unmapped-row"' in result.output
    assert CliRunner().invoke(main, run).exit_code == 2
    other = makers.copy_model(big, tmp_path / "other")
    makers.write_json(other / "vocab_map.json", {"no": "map"})
    assert '"bad-map"' in CliRunner().invoke(main, [*run, "--like", str(other), "--json"]).output
    larger = {"new_id_of": {}, "rows_before": 5000, "rows_after": 10}  # of a model with another number of rows
    makers.write_json(other / "vocab_map.json", larger)
    makers.edit_json(folder / "adapter_config.json", trainable_token_indices=None)
    assert '"adapter-format"' in CliRunner().invoke(main, [*run, "--like", str(other), "--json"]).output
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    assert '"adapter-format"' in CliRunner().invoke(main, [*run, "--like", str(big), "--json"]).output
    assert not (tmp_path / "small").exists()


# Inside a transplant.


@pytest.mark.parametrize("init", ["omp", "subword"])
def test_a_transplant_trims_its_target_first(model_of: Callable[..., Path], tmp_path: Path, init: str) -> None:
    source, donor = (
        model_of("llama", **SIZES),
        model_of("gpt-neox", family="byte-level", vocab_size=1000, rows=1024, seed=5),
    )
    report = tokswap.transplant_tokenizer(
        str(source), str(donor), init=init, trim_corpora=[str(GERMAN)], out=tmp_path / "out"
    )
    new_of = new_ids(tmp_path / "out")
    tokenizer, whole = read_tokenizer(tmp_path / "out"), read_tokenizer(donor)
    assert len(report.alignment) == len(tokenizer.vocabulary) == len(new_of) < 1000
    for line in GERMAN.read_text("utf-8").splitlines():
        assert tokenizer.encode(line) == [new_of[token] for token in whole.encode(line)]
    assert any("trimmed first" in note for note in report.plan.notes)
    assert [check for check in verify_checkpoint(tmp_path / "out", against=source) if not check.ok] == []
    # A method that reads one token at a time gives the same rows as without the trim: the donor's rows are right.
    if init == "subword":
        full = tokswap.transplant_tokenizer(str(source), str(donor), init=init, out=tmp_path / "full")
        rows, all_rows = (tools.weights(Path(r.plan.names.out))["model.embed_tokens.weight"] for r in (report, full))
        normal = [old for old in new_of if full.alignment.reason[old] <= 1]
        np.testing.assert_allclose(rows[[new_of[old] for old in normal]].numpy(), all_rows[normal].numpy(), atol=1e-6)


def test_the_donors_rows_are_those_of_the_kept_tokens(model_of: Callable[..., Path], tmp_path: Path) -> None:
    """A donor that is the source shares every token, so each row must come back as it was.

    Byte pieces are left out: they mean something else where the trim has dropped the piece of the same byte.
    """
    source = model_of("llama", **SIZES)
    tokswap.transplant_tokenizer(str(source), str(source), init="omp", trim_corpora=[str(GERMAN)], out=tmp_path / "out")
    before, after = tools.weights(source), tools.weights(tmp_path / "out")
    pieces = read_tokenizer(source).vocabulary.text
    for old, new in new_ids(tmp_path / "out").items():
        if not pieces[old].startswith("<0x"):
            assert tools.bits(after["lm_head.weight"][new]) == tools.bits(before["lm_head.weight"][old])


# The command line.


def test_the_plan_and_the_report_are_printed(model_of: Callable[..., Path], tmp_path: Path) -> None:
    source = model_of("llama-tied", chat_template=makers.CHAT_TEMPLATE, **SIZES)
    run = [
        "trim",
        "--model",
        str(source),
        "--corpus",
        f"{GERMAN}=2",
        "--held-out",
        str(makers.TEXTS / "english.txt"),
        "--check",
        "full",  # a machine without memory to load a model leaves the comparison out of `auto`
        "--out",
        str(tmp_path / "out"),
    ]
    plan = CliRunner().invoke(main, [*run, "--dry-run"])
    assert plan.exit_code == 0, plan.output
    assert "german.txt" in plan.output
    assert not (tmp_path / "out").exists()
    report = CliRunner().invoke(main, run)
    assert report.exit_code == 0, report.output
    for words in ("hidden states bit-equal", "held-out text", "conversations equal", "same most likely token", "saved"):
        assert words in report.output
    document = makers.read_json(tmp_path / "out" / "tokswap.json")
    assert document["checks"]["held_out"]["tokens_kept"] < 1
    assert document["plan"]["corpora"][0]["kept"] < 1
    assert document["plan"]["operation"] == "trim"


FAILURES: dict[str, tuple[str, str]] = {
    "model_figures": ("hidden_states_equal", "hidden states"),
    "reload_figures": ("chats_equal", "chat template"),
}


@pytest.mark.parametrize("check", FAILURES)
def test_a_failed_check_leaves_nothing(
    check: str, model_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, words = FAILURES[check]
    real = getattr(run, check)
    monkeypatch.setattr(run, check, lambda *given, **more: {**real(*given, **more), key: 0})
    source = model_of("llama-tied", chat_template=makers.CHAT_TEMPLATE, **SIZES)
    error = refused(tmp_path, source, "check-failed", OutputError)
    assert words in error.message
    out = tmp_path / "result" / "out"
    command = ["trim", "--model", str(source), "--corpus", str(GERMAN), "--out", str(out), "--json"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert '"check-failed"' in result.output
    assert not out.exists()


def test_sources_with_old_files(model_of: Callable[..., Path], tmp_path: Path) -> None:
    """Other classes read these files instead of tokenizer.json, and would bring the old ids back."""
    source = makers.copy_model(model_of("bert", **SIZES), tmp_path / "source")
    vocabulary = read_tokenizer(source).vocabulary
    write(source / "vocab.txt", "\n".join(vocabulary.text) + "\n")
    makers.edit_json(source / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    report = trim_vocabulary(str(source), corpora=[str(GERMAN)], out=tmp_path / "out")
    assert not (tmp_path / "out" / "vocab.txt").exists()
    assert any("vocab.txt" in note for note in report.plan.notes)
    assert report.checks["failed"] == []
    assert open_checkpoint(tmp_path / "out").matrices[0].rows == makers.tokenizer_size(tmp_path / "out")


def test_tokenizer_files_of_the_result_are_new(trimmed_of: Callable[..., tuple[Path, Path, Any]]) -> None:
    source, out, report = trimmed_of("gemma3")
    assert isinstance(read_tokenizer(out), Tokenizer)
    assert makers.tokenizer_size(out) < makers.tokenizer_size(source)
    assert report.plan.coverage.keys() == {"observed", "forced", "scaffold"}
    assert report.checks["unreachable"][1] <= report.checks["unreachable"][0]


def test_texts_may_be_paths(model_of: Callable[..., Path], tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(makers.shipped_text("english")[:1500], encoding="utf-8")
    words = tmp_path / "words.txt"
    words.write_text("harbour\nferry\n", encoding="utf-8")
    given = {"corpora": [corpus], "words": [words], "held_out": [corpus]}
    tokswap.trim_vocabulary(model_of("llama"), **given, out=tmp_path / "paths")
    tokswap.trim_vocabulary(
        model_of("llama"), **{name: [str(one) for one in ones] for name, ones in given.items()}, out=tmp_path / "names"
    )
    tokens = [(tmp_path / name / "tokenizer.json").read_bytes() for name in ("paths", "names")]
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("check", ["full", "tokens"])
def test_the_plan_counts_what_the_check_loads(
    model_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    (tmp_path / "text.txt").write_text("The ferry leaves at nine.\n")

    def needed() -> int:
        job = plan_trim(str(model_of("llama")), corpora=[tmp_path / "text.txt"], check=check, out=tmp_path / "out")
        return job.plan.estimate.memory_bytes

    monkeypatch.setattr("tokswap.trim.plan.reload_bytes", lambda tokenizer: 0)
    before = needed()
    monkeypatch.setattr("tokswap.trim.plan.reload_bytes", lambda tokenizer: 1000**4)
    assert 1000**4 < needed() < 1000**4 + before
