from __future__ import annotations

from typing import Any

import pytest

from tokswap.checkpoint.nested_configs import configs, is_text_path, text_config

V = 771


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"vocab_size": V}, ""),
        ({"text_config": {"vocab_size": V}}, "text_config"),
        ({"vocab_size": V, "text_config": {"vocab_size": V}}, ""),
        ({"thinker_config": {"text_config": {"vocab_size": V}}}, "thinker_config.text_config"),
        ({"audio_config": {"vocab_size": 9}, "text_config": {"vocab_size": V}}, "text_config"),
        ({"qformer_config": {"vocab_size": 9}, "text_config": {"vocab_size": V}}, "text_config"),
        ({"projector_config": {"vocab_size": 30522}, "text_config": {"vocab_size": V}}, "text_config"),
        ({"depth_decoder_config": {"vocab_size": 9}, "vocab_size": V}, ""),
        ({"vocab_size": 257152, "text_config": {"vocab_size": V}}, "text_config"),
        ({"a": {"vocab_size": 9, "text_config": {"vocab_size": V}}, "vocab_size": V}, ""),
        ({"encoder": {"vocab_size": V}, "decoder": {"vocab_size": V}}, "encoder"),
        ({"encoder": {"model_type": "beit", "vocab_size": 8192}, "decoder": {"vocab_size": V}}, "decoder"),
    ],
)
def test_the_first_config_with_a_text_vocabulary_owns_it(config: dict[str, Any], path: str) -> None:
    found, text = text_config(config)
    assert found == path
    assert text["vocab_size"] == V


def test_every_level_has_its_dotted_path() -> None:
    config = {"a": {"b": {"x": 1}, "c": 2}, "d": [{"e": {}}]}
    assert list(configs(config)) == [("", config), ("a", config["a"]), ("a.b", {"x": 1})]


@pytest.mark.parametrize("path", ["", "text_config", "thinker_config.text_config", "encoder", "decoder"])
def test_configs_of_text(path: str) -> None:
    assert is_text_path(path)


@pytest.mark.parametrize("path", ["vision_config", "audio_config", "thinker_config.vision_config", "vq_config"])
def test_configs_of_other_things(path: str) -> None:
    assert not is_text_path(path)
