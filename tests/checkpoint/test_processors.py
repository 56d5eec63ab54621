"""A model that reads images gets another tokenizer: its processor must know the new names of its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import makers
import tools

from tokswap.checkpoint.processors import edit_processors
from tokswap.evaluation.verify import verify_checkpoint
from tokswap.transplant.plan import transplant_tokenizer
from tokswap.trim.plan import trim_vocabulary

SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
NEW = "<|reserved_special_token_0|>"


def with_token(folder: Path, text: str) -> int:
    spec = makers.read_json(folder / "tokenizer.json")
    token = makers.tokenizer_size(folder)
    spec["added_tokens"].append({**spec["added_tokens"][0], "id": token, "content": text})
    makers.write_json(folder / "tokenizer.json", spec)
    return token


def llava(folder: Path) -> Path:
    import transformers as hf

    makers.make_tokenizer("sentencepiece", folder)
    image = with_token(folder, "<image>")
    makers.edit_json(folder / "tokenizer_config.json", extra_special_tokens={"image_token": "<image>"})
    ids = {f"{role}_token_id": token for role, token in makers.role_ids(folder).items() if role != "unk"}
    text = {"model_type": "llama", "vocab_size": image + 1, "hidden_size": 16, "num_key_value_heads": 2, **SMALL, **ids}
    vision = {"model_type": "clip_vision_model", "hidden_size": 16, "image_size": 28, "patch_size": 14, **SMALL}
    config = hf.LlavaConfig(text_config=text, vision_config=vision, image_token_index=image, vision_feature_layer=-1)
    hf.LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor: dict[str, Any] = {"processor_class": "LlavaProcessor", "patch_size": 14, "image_token": "<image>"}
    processor |= {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor["image_processor"] = {"image_processor_type": "CLIPImageProcessor", "size": {"height": 28, "width": 28}}
    makers.write_json(folder / "processor_config.json", processor)
    return folder


IDEFICS = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
PLACES = tuple(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))


def idefics(folder: Path) -> Path:
    """A model whose processor knows its tokens by texts in its code."""
    import transformers as hf

    makers.make_tokenizer("byte-level", folder)
    image = [with_token(folder, text) for text in (*IDEFICS, *PLACES)][1]
    text = {"vocab_size": makers.tokenizer_size(folder), "hidden_size": 16, "num_key_value_heads": 2, **SMALL}
    vision = {"hidden_size": 16, "image_size": 28, "patch_size": 14, **SMALL}
    config = hf.Idefics3Config(text_config=text, vision_config=vision, image_token_id=image, scale_factor=1)
    hf.Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    makers.write_json(
        folder / "processor_config.json",
        {
            "processor_class": "Idefics3Processor",
            "image_seq_len": 4,
            "image_processor": {
                "image_processor_type": "Idefics3ImageProcessor",
                "size": {"longest_edge": 56},
                "max_image_size": {"longest_edge": 28},
            },
        },
    )
    return folder


def prompt(folder: Path) -> list[int]:
    import numpy as np
    from transformers import AutoProcessor

    image = np.zeros((56, 56, 3), np.uint8)
    return list(AutoProcessor.from_pretrained(folder)(images=image, text="<image> the old bridge")["input_ids"][0])


@tools.needs_release_5
def test_a_trim_keeps_what_the_processor_writes_around_images(tmp_path: Path) -> None:
    """Two line feeds before the last part of an image became two tokens."""
    from transformers import AutoTokenizer

    source = idefics(tmp_path / "source")
    (tmp_path / "corpus.txt").write_text("see the old bridge", encoding="utf-8")
    out = trim_vocabulary(str(source), corpora=[tmp_path / "corpus.txt"], out=tmp_path / "out").path
    assert out is not None
    before, after = AutoTokenizer.from_pretrained(source), AutoTokenizer.from_pretrained(out)
    assert after.convert_ids_to_tokens(prompt(out)) == before.convert_ids_to_tokens(prompt(source))
    assert len(after) < len(before)
    checks = verify_checkpoint(str(out), against=str(source))
    assert [check for check in checks if not check.ok] == []
    assert "processor" in [check.name for check in checks]


@tools.needs_release_5
def test_a_processor_that_writes_the_old_names_is_found(tmp_path: Path) -> None:
    """It adds them, with ids past the rows. Nothing said so."""
    source = idefics(tmp_path / "source")
    target = makers.make_tokenizer("byte-level", tmp_path / "target", vocab_size=650)
    with_token(target, "<picture>")
    options: dict[str, Any] = {"init": "mean", "map_tokens": ["<picture>=<image>"]}
    report = transplant_tokenizer(str(source), str(target), out=tmp_path / "out", **options)
    assert "<fake_token_around_image>, <image>" in " ".join(report.plan.notes)
    [wrong] = [check for check in verify_checkpoint(str(tmp_path / "out"), against=str(source)) if not check.ok]
    assert wrong.name == "processor"
    assert "adds '<image>', which has no row" in wrong.detail
    for text in (*IDEFICS, *PLACES):
        with_token(target, text)
    report = transplant_tokenizer(str(source), str(target), init="mean", out=tmp_path / "whole")
    assert "processor may write" not in " ".join(report.plan.notes)
    assert all(check.ok for check in verify_checkpoint(str(tmp_path / "whole"), against=str(source)))


@tools.needs_release_5
def test_a_token_that_only_the_class_of_the_processor_names(tmp_path: Path) -> None:
    """Qwen's asks the tokenizer for `image_token`, and else writes `<|image_pad|>`: the result had no such token."""
    from transformers import AutoTokenizer

    source = llava(tmp_path / "source")
    makers.edit_json(source / "tokenizer_config.json", extra_special_tokens=...)
    makers.edit_json(source / "processor_config.json", image_token=...)
    target = makers.make_tokenizer("byte-level", tmp_path / "target")
    options: dict[str, Any] = {"init": "mean", "map_tokens": [f"{NEW}=<image>"]}
    transplant_tokenizer(str(source), str(target), out=tmp_path / "out", **options)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").image_token == NEW
    assert all(check.ok for check in verify_checkpoint(str(tmp_path / "out"), against=str(source)))
    makers.edit_json(tmp_path / "out" / "tokenizer_config.json", extra_special_tokens=...)
    wrong = [check.name for check in verify_checkpoint(str(tmp_path / "out"), against=str(source)) if not check.ok]
    assert wrong == ["processor"]


@tools.needs_release_5
def test_the_processor_names_the_token_of_the_config(tmp_path: Path) -> None:
    """With the old name no prompt would have a place for its image, and `verify` would hold."""
    from transformers import AutoConfig, AutoTokenizer

    source = llava(tmp_path / "source")
    target = makers.make_tokenizer("byte-level", tmp_path / "target")
    out = tmp_path / "out"
    transplant_tokenizer(str(source), str(target), init="subword", map_tokens=[f"{NEW}=<image>"], out=out)
    tokenizer, config = AutoTokenizer.from_pretrained(out), AutoConfig.from_pretrained(out)
    assert makers.read_json(out / "processor_config.json")["image_token"] == NEW == tokenizer.image_token
    assert tokenizer.image_token_id == config.image_token_id
    assert makers.read_json(out / "processor_config.json")["image_processor"]["size"] == {"height": 28, "width": 28}
    assert [check for check in verify_checkpoint(str(out), against=str(source)) if not check.ok] == []
    with_token(target, "<image>")
    transplant_tokenizer(str(source), str(target), init="subword", out=tmp_path / "same")
    assert (tmp_path / "same" / "processor_config.json").read_bytes() == (source / "processor_config.json").read_bytes()


def test_the_config_inside_a_loaded_model(tmp_path: Path) -> None:
    """It has the size with which the model computes its loss."""
    import transformers as hf

    source = llava(tmp_path / "source")
    makers.make_tokenizer("byte-level", tmp_path / "target", vocab_size=700)
    image = with_token(tmp_path / "target", "<image>")
    target = hf.AutoTokenizer.from_pretrained(tmp_path / "target")
    loaded = hf.LlavaForConditionalGeneration.from_pretrained(source), hf.AutoTokenizer.from_pretrained(source)
    model, tokenizer = transplant_tokenizer(loaded, target, init="mean")
    text = model.config.text_config
    assert (text.vocab_size, text.eos_token_id, model.config.image_token_id) == (701, target.eos_token_id, image)
    assert model.model.language_model.vocab_size == 701
    ids = tokenizer("the old bridge", return_tensors="pt")["input_ids"]
    assert model(ids, labels=ids).loss > 0


def test_a_token_that_the_new_vocabulary_lacks() -> None:
    from test_configs import ids, vocabulary

    map_ = ids(target=vocabulary("x hello [BOS] [EOS]", bos="[BOS]", eos="[EOS]"))
    changed, notes = edit_processors({"processor_config.json": {"image_token": "<image>", "size": 3}}, map_)
    assert changed == {}
    assert "'<image>'" in notes[0]


def test_a_template_among_the_settings_does_not_outlive_its_tokenizer() -> None:
    """transformers prefers it to the one that comes with the new tokenizer, and it writes the old special tokens."""
    from test_configs import ids, vocabulary

    map_ = ids(target=vocabulary("x hello [BOS] [EOS]", bos="[BOS]", eos="[EOS]"))
    changed, _ = edit_processors({"processor_config.json": {"chat_template": "<old>", "size": 3}}, map_)
    assert changed == {"processor_config.json": {"size": 3}}


def test_a_second_vocabulary_of_the_same_size_stays(tmp_path: Path) -> None:
    """The Q-Former of InstructBLIP has the tokens of BERT. The result did not load, or `verify` ended in a traceback."""
    import transformers as hf

    source = makers.make_tokenizer("byte-level", tmp_path / "source")
    size = makers.tokenizer_size(source)
    vision = {"image_size": 28, "patch_size": 14, "hidden_size": 16, **SMALL}
    queries = {"vocab_size": size, "hidden_size": 16, "encoder_hidden_size": 16, **SMALL}
    text = {"model_type": "llama", "vocab_size": size, "hidden_size": 16, "num_key_value_heads": 2, **SMALL}
    config = hf.InstructBlipConfig(
        vision_config=vision, qformer_config=queries, text_config=text, num_query_tokens=4, image_token_index=5
    )
    hf.InstructBlipForConditionalGeneration(config).save_pretrained(source)
    trim_vocabulary(str(source), corpora=[makers.TEXTS / "german.txt"], out=tmp_path / "out")
    assert [check for check in verify_checkpoint(str(tmp_path / "out"), against=str(source)) if not check.ok] == []
