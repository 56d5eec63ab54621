"""What end-to-end tests share: reading and changing the weights of a folder, and renumbering a tokenizer."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import makers
import numpy as np
import pytest

AUTO = {
    "bert": "AutoModelForMaskedLM",
    "roberta": "AutoModelForMaskedLM",
    "t5": "AutoModelForSeq2SeqLM",
    "bart": "AutoModelForSeq2SeqLM",
}
"""Architecture -> the class that a user loads it with; AutoModelForCausalLM for the others."""

INPUT = {
    "gpt2": "transformer.wte.weight",
    "gpt-neox": "gpt_neox.embed_in.weight",
    "bert": "bert.embeddings.word_embeddings.weight",
    "roberta": "roberta.embeddings.word_embeddings.weight",
    "t5": "shared.weight",
    "bart": "model.shared.weight",
}
"""Architecture -> its input embeddings; model.embed_tokens.weight for the others."""

OTHER_MATRICES = {
    "llama": ["lm_head.weight"],
    "qwen2": ["lm_head.weight"],
    "gpt-neox": ["embed_out.weight"],
    "bert": ["cls.predictions.bias"],
    "roberta": ["lm_head.bias"],
    "bart": ["final_logits_bias"],
}
"""Architecture -> its vocabulary matrices besides the input embeddings."""


needs_release_5 = pytest.mark.skipif(
    importlib.metadata.version("transformers").startswith("4."), reason="about what transformers 5 does"
)


def matrices_of(architecture: str) -> list[str]:
    return [INPUT.get(architecture, "model.embed_tokens.weight"), *OTHER_MATRICES.get(architecture, [])]


def weights(folder: Path) -> dict[str, Any]:
    """Return every tensor of a folder, read with safetensors itself."""
    from safetensors.torch import load_file

    tensors: dict[str, Any] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def bits(tensor: Any) -> bytes:
    """Return a tensor's bytes, for comparisons that neither rounding nor NaN can blur."""
    import torch

    return bytes(tensor.contiguous().view(torch.uint8).numpy().tobytes())


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Change the tensors of a one-file checkpoint in place."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def snapshot(folder: Path) -> dict[str, str]:
    """Return relative path -> digest of everything in a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def load(folder: Path, architecture: str) -> tuple[Any, dict[str, Any]]:
    """Load a model as a user would. Return it, and what transformers says about its tensors."""
    import transformers

    cls = getattr(transformers, AUTO.get(architecture, "AutoModelForCausalLM"))
    model, info = cls.from_pretrained(folder, dtype="auto", output_loading_info=True, local_files_only=True)
    return model.eval(), info


def encode(folder: Path, text: str, **options: Any) -> list[int]:
    """Tokenize a text as a user of the folder would."""
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder, local_files_only=True)(text, **options)["input_ids"]
    return list(ids)


def unused_bytes(folder: Path) -> set[int]:
    """Return the ids of byte tokens (<0x41>) whose byte has a piece (A): no text gives them, and their rows are neutral."""
    spec = makers.read_json(folder / "tokenizer.json")
    vocab = spec["model"]["vocab"]
    ids = vocab if isinstance(vocab, dict) else {token: n for n, (token, _) in enumerate(vocab)}
    characters = {f"<0x{code:02X}>": chr(code).replace(" ", "▁") for code in range(128)}
    return {ids[byte] for byte, character in characters.items() if byte in ids and character in ids}


def logits(model: Any, ids: list[int]) -> Any:
    """Return float32 [n, V] for one sequence of ids. An encoder-decoder reads it on both sides."""
    import torch

    batch = torch.tensor([ids])
    more = {"decoder_input_ids": batch} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        return model(input_ids=batch, **more).logits[0].float()


def renumbered(folder: Path, seed: int = 3, keep: tuple[int, ...] = ()) -> np.ndarray:
    """Give every token of a folder's tokenizer another id, in the tokenizer and in the configs.

    Args:
        folder: A folder with a tokenizer.
        seed: Seed of the new order.
        keep: Ids that stay.

    Returns:
        New id of each old id, int [V].
    """
    spec = makers.read_json(folder / "tokenizer.json")
    size = makers.tokenizer_size(folder)
    free = np.setdiff1d(np.arange(size), keep)
    new_of = np.arange(size)
    new_of[free] = np.random.default_rng(seed).permutation(free)
    model = spec["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {token: int(new_of[n]) for token, n in model["vocab"].items()}
    else:
        model["vocab"] = [model["vocab"][n] for n in np.argsort(new_of)]
        model["unk_id"] = int(new_of[model["unk_id"]])
    for entry in spec["added_tokens"]:
        entry["id"] = int(new_of[entry["id"]])
    spec["added_tokens"].sort(key=lambda entry: entry["id"])
    post = spec["post_processor"] or {}
    for node in [post, *post.get("processors", [])]:
        for entry in node.get("special_tokens", {}).values():
            entry["ids"] = [int(new_of[n]) for n in entry["ids"]]
    makers.write_json(folder / "tokenizer.json", spec)
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            config = makers.read_json(folder / name)
            ids = {key: int(new_of[n]) for key, n in config.items() if re.search("_token_id$", key) and n is not None}
            makers.write_json(folder / name, config | ids)
    return new_of


class Writer:
    """A model that writes given ids after any prompt, to be called as transformers calls `generate`."""

    device = "cpu"

    def __init__(self, ids: list[int], end: int | None = None) -> None:
        self.ids = ids
        self.generation_config = SimpleNamespace(eos_token_id=end)

    def generate(self, input_ids: Any, max_new_tokens: int, **more: Any) -> Any:
        import torch

        written = torch.tensor([self.ids[:max_new_tokens]]).expand(len(input_ids), -1)
        return torch.cat([input_ids, written], dim=1)
