"""Small real tokenizers and models for tests: trained on `texts/`, and saved the way the libraries save them."""

from __future__ import annotations

import base64
import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

TEXTS = Path(__file__).parent / "texts"
FAMILIES = ("byte-level", "sentencepiece", "unigram", "wordpiece")
DEFAULT_FAMILY = {
    "llama": "sentencepiece",
    "llama-tied": "byte-level",
    "qwen2": "byte-level",
    "gemma3": "sentencepiece",
    "gpt2": "byte-level",
    "gpt-neox": "byte-level",
    "bert": "wordpiece",
    "roberta": "byte-level",
    "t5": "unigram",
    "bart": "byte-level",
}
ARCHITECTURES = tuple(DEFAULT_FAMILY)

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def shipped_text(name: str) -> str:
    """Return one of the texts: english, german, japanese, russian, arabic or code."""
    return (TEXTS / f"{name}.txt").read_text(encoding="utf-8")


def shipped_texts() -> list[str]:
    return [path.read_text(encoding="utf-8") for path in sorted(TEXTS.glob("*.txt"))]


def make_tokenizer(
    family: str,
    folder: Path,
    *,
    vocab_size: int = 600,
    chat_template: str | None = None,
    adds_bos: bool = False,
    seed_text: list[str] | None = None,
) -> Path:
    """Train a tokenizer and write its files to a folder.

    Byte-level and SentencePiece tokenizers use every id below vocab_size. The other trainers may stop a little earlier.

    Args:
        family: Which kind of tokenizer.
        folder: Where to write it.
        vocab_size: How many tokens it has.
        chat_template: Its chat template.
        adds_bos: Whether an encoded text begins with bos; WordPiece always begins with [CLS].
        seed_text: What it is trained on, the shipped texts by default.
    """
    texts = shipped_texts() if seed_text is None else seed_text
    spec, roles = _TRAINERS[family](texts, vocab_size, adds_bos)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "tokenizer.json", spec)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **roles}
    write_json(folder / "tokenizer_config.json", config)
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")
    return folder


def make_model(
    architecture: str,
    folder: Path,
    *,
    family: str | None = None,
    rows: int | None = None,
    dtype: str = "float32",
    shards: int = 1,
    seed: int = 0,
    **tokenizer_options: Any,
) -> Path:
    """Save a tiny random model with the tokenizer that fits it.

    Args:
        architecture: Which kind of model.
        folder: Where to write it.
        family: Which kind of tokenizer, the usual one of the architecture by default.
        rows: Rows of the vocabulary matrices, the tokenizer's size by default. More rows are padding rows.
        dtype: Type of the weights, as torch names it.
        shards: How many safetensors files the weights are split into, at least.
        seed: Seed of the weights.
        **tokenizer_options: What `make_tokenizer` takes.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    make_tokenizer(family or DEFAULT_FAMILY[architecture], folder, **tokenizer_options)
    ids = role_ids(folder)
    size = tokenizer_size(folder) if rows is None else rows
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = _build(architecture, size, ids)
        _randomise(model)
    model = model.to(getattr(torch, dtype)).eval()
    nbytes = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    model.save_pretrained(folder, max_shard_size=nbytes * 2 if shards == 1 else -(-nbytes // shards))
    return folder


def make_encoder(folder: Path, *, seed: int = 0) -> Path:
    """Save a tiny random sentence-transformers model: the mean of the hidden states of a BERT, with norm 1."""
    import torch
    from transformers import BertConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    make_tokenizer("wordpiece", folder)
    edit_json(folder / "tokenizer_config.json", model_max_length=64)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=tokenizer_size(folder),
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
        )
        model = BertModel(config)
        _randomise(model)
    model.eval().save_pretrained(folder)
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(kinds.items())
    ]
    write_json(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir()
    write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
    return folder


def make_draft_head(folder: Path, *, rows: int, width: int = 24) -> Path:
    """Write the parts of an EAGLE-3 draft head that depend on the vocabulary: a row for each of the target's ids."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    config = {"architectures": ["LlamaForCausalLMEagle3"], "hidden_size": width, "vocab_size": rows}
    write_json(folder / "config.json", config)
    torch.manual_seed(0)
    tensors = {"lm_head.weight": torch.randn(rows, width), "fc.weight": torch.randn(width, 3 * width)}
    save_file(tensors, folder / "model.safetensors")
    return folder


def write_tekken(folder: Path, tokens: list[bytes]) -> int:
    """Write the tokenizer file of mistral-common. Returns the number of its ids.

    Args:
        folder: Where to write it.
        tokens: Its text tokens: the 256 bytes, then longer ones.
    """
    tools_and_images = ["AVAILABLE_TOOLS", "/AVAILABLE_TOOLS", "TOOL_RESULTS", "/TOOL_RESULTS", "TOOL_CALLS", "IMG"]
    more = ["IMG_BREAK", "IMG_END", "PREFIX", "MIDDLE", "SUFFIX", "SYSTEM_PROMPT", "/SYSTEM_PROMPT", "TOOL_CONTENT"]
    marked = [f"[{name}]" for name in ("INST", "/INST", *tools_and_images)]
    names = ["<unk>", "<s>", "</s>", *marked, "<pad>", *(f"[{name}]" for name in more), "<SPECIAL_20>"]
    content = {
        "config": {
            "pattern": r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            "num_vocab_tokens": len(tokens),
            "default_vocab_size": len(tokens) + len(names),
            "default_num_special_tokens": len(names),
            "version": "v3",
        },
        "vocab": [
            {"rank": n, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for n, token in enumerate(tokens)
        ],
        "special_tokens": [{"rank": n, "token_str": name, "is_control": True} for n, name in enumerate(names)],
    }
    write_json(folder / "tekken.json", content)
    return len(tokens) + len(names)


def copy_model(source: Path, target: Path) -> Path:
    """Copy a made folder, so that a test may change the copy."""
    return Path(shutil.copytree(source, target))


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2), encoding="utf-8")
    return path


def edit_json(path: Path, **changes: Any) -> Any:
    """Set keys at the top of a JSON object; a change to `...` removes the key. Returns the new object."""
    value = {**read_json(path), **changes}
    value = {key: content for key, content in value.items() if content is not ...}
    write_json(path, value)
    return value


def tokenizer_size(folder: Path) -> int:
    """Return one more than the highest id of a tokenizer."""
    return 1 + max(_ids(read_json(folder / "tokenizer.json")).values())


def with_numbers(folder: Path, out: Path, pattern: str | None) -> Path:
    """Give a byte-level tokenizer every number of up to three digits, and let it split numbers by a pattern first."""
    out = copy_model(folder, out)
    spec = read_json(out / "tokenizer.json")
    vocab, merges = spec["model"]["vocab"], spec["model"]["merges"]
    for length in (2, 3):
        for number in map("".join, product("0123456789", repeat=length)):
            vocab.setdefault(number, len(vocab))
            merges += [[number[:at], number[at:]] for at in range(1, length)]
    if pattern is not None:
        first = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [first, spec["pre_tokenizer"]]}
    write_json(out / "tokenizer.json", spec)
    return out


def role_ids(folder: Path) -> dict[str, int]:
    """Return role -> id, for the roles that the tokenizer has."""
    ids, config = _ids(read_json(folder / "tokenizer.json")), read_json(folder / "tokenizer_config.json")
    return {
        key.removesuffix("_token"): ids[content]
        for key, content in config.items()
        if key.endswith("_token") and content in ids
    }


def _ids(spec: dict[str, Any]) -> dict[str, int]:
    vocab = spec["model"]["vocab"]
    ids = dict(vocab) if isinstance(vocab, dict) else {piece: n for n, (piece, _) in enumerate(vocab)}
    return ids | {entry["content"]: entry["id"] for entry in spec["added_tokens"]}


# Tokenizers. Each trainer returns the content of tokenizer.json and the role tokens.

Trained = tuple[dict[str, Any], dict[str, str]]


def _byte_level(texts: list[str], size: int, adds_bos: bool) -> Trained:
    """GPT-2's and SmolLM's kind."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    reserved = [f"<|reserved_special_token_{n}|>" for n in range(4)]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", *reserved],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    spec = json.loads(tokenizer.to_str())
    if adds_bos:
        template = _template(["<|im_start|>", "$A"], {"<|im_start|>": 1})
        spec["post_processor"] = {"type": "Sequence", "processors": [spec["post_processor"], template]}
    return spec, {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}


def _sentencepiece(texts: list[str], size: int, adds_bos: bool) -> Trained:
    """Gemma's kind: special tokens first, then reserved tokens, the 256 byte tokens, and what was trained."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    specials = ["<pad>", "<eos>", "<bos>", "<unk>"]
    unused = [f"<unused{n}>" for n in range(6)]
    fixed = [*specials, *unused, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁*[^▁]+|▁+"), "isolated")
    room = size - len(fixed)
    alphabet = _commonest("".join(texts).replace(" ", "▁"), room // 3)
    trainer = trainers.BpeTrainer(
        vocab_size=room, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator([line for text in texts for line in text.splitlines()], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    trained = sorted(model["vocab"], key=model["vocab"].__getitem__)
    ids = {piece: n for n, piece in enumerate([*fixed, *trained])}
    model |= {"vocab": ids, "unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True}
    spec = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(n, content, special=content in specials) for n, content in enumerate(specials + unused)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": _template(["<bos>", "$A"], ids) if adds_bos else None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": model,
    }
    return spec, {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}


def _unigram(texts: list[str], size: int, adds_bos: bool) -> Trained:
    """XLM-R's and T5's kind."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=specials, unk_token="<unk>", show_progress=False, max_piece_length=8
    )
    known = {*_commonest("".join(texts), size // 2), " "}  # the trainer keeps every character that it sees
    lines = ["".join(filter(known.__contains__, line)) for text in texts for line in text.splitlines()]
    tokenizer.train_from_iterator(lines, trainer)
    spec = json.loads(tokenizer.to_str())
    # Trained scores, and so their order, vary a little from run to run. Frequencies in the text do not.
    text = "".join("▁" + tokenizer.normalizer.normalize_str(text).replace(" ", "▁") for text in texts)
    pieces = {piece: text.count(piece) for piece, _ in spec["model"]["vocab"] if piece not in specials}
    ranked = sorted(pieces.items(), key=lambda item: (-item[1], item[0]))
    scores = [[piece, math.log(max(count, 0.5) / len(text))] for piece, count in ranked]
    spec["model"] |= {"vocab": [*([token, 0.0] for token in specials), *scores], "unk_id": 3}
    ids = {token: n for n, token in enumerate(specials)}
    spec["post_processor"] = _template(["<s>", "$A", "</s>"] if adds_bos else ["$A", "</s>"], ids)
    return spec, {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


def _wordpiece(texts: list[str], size: int, adds_bos: bool) -> Trained:
    """BERT's kind."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    alphabet = _commonest("".join(map(tokenizer.normalizer.normalize_str, texts)), size // 6)
    # Continuations are special while training: the trainer gives ids to others in another order every time.
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*specials, *("##" + character for character in alphabet if character.isalnum())],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    spec = json.loads(tokenizer.to_str())
    spec["added_tokens"] = spec["added_tokens"][: len(specials)]
    ids = {token: n for n, token in enumerate(specials)}
    spec["post_processor"] = _template(["[CLS]", "$A", "[SEP]"], ids)
    spec["post_processor"]["pair"] += [{"Sequence": {"id": "B", "type_id": 1}}, _special("[SEP]", 1)]
    names = ("pad", "unk", "cls", "sep", "mask")
    return spec, {f"{role}_token": token for role, token in zip(names, specials, strict=True)}


_TRAINERS = {
    "byte-level": _byte_level,
    "sentencepiece": _sentencepiece,
    "unigram": _unigram,
    "wordpiece": _wordpiece,
}


def _commonest(text: str, most: int) -> list[str]:
    """Return the most frequent characters. The trainers' own choice among equally frequent ones is not repeatable."""
    count = Counter(character for character in text if not character.isspace())
    return sorted(count, key=lambda character: (-count[character], character))[:most]


def _added(token: int, content: str, *, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token, "content": content, **flags, "special": special}


def _special(token: str, sequence: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": sequence}}


def _template(single: list[str], ids: dict[str, int]) -> dict[str, Any]:
    """Return a TemplateProcessing; `$A` is the text. The template of a pair has the second text at its end."""
    text = {"A": {"Sequence": {"id": "A", "type_id": 0}}, "B": {"Sequence": {"id": "B", "type_id": 1}}}
    parts = [text["A"] if part == "$A" else _special(part, 0) for part in single]
    known = {part: {"id": part, "ids": [ids[part]], "tokens": [part]} for part in single if part != "$A"}
    pair = parts if "[SEP]" in single else [*parts, text["B"]]
    return {"type": "TemplateProcessing", "single": parts, "pair": list(pair), "special_tokens": known}


# Models.


_NARROW: dict[str, int] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
"""Two narrow layers. None of these numbers is likely to equal the size of a vocabulary."""


def _build(architecture: str, rows: int, ids: dict[str, int]) -> Any:
    """Return a model with untrained weights."""
    if architecture not in _BUILDERS:
        raise ValueError(f"no architecture named {architecture}: {', '.join(ARCHITECTURES)}")
    return _BUILDERS[architecture](rows, ids)


def _roles(ids: dict[str, int], *roles: str) -> dict[str, int | None]:
    """Return config keys for the ids of some roles."""
    return {f"{role}_token_id": ids.get(role) for role in roles or ("bos", "eos", "pad")}


def _llama(rows: int, ids: dict[str, int], tied: bool = False) -> Any:
    import transformers as hf

    config = hf.LlamaConfig(vocab_size=rows, num_key_value_heads=2, tie_word_embeddings=tied, **_NARROW, **_roles(ids))
    return hf.LlamaForCausalLM(config)


def _qwen2(rows: int, ids: dict[str, int]) -> Any:
    import transformers as hf

    config = hf.Qwen2Config(vocab_size=rows, num_key_value_heads=2, tie_word_embeddings=False, **_NARROW, **_roles(ids))
    return hf.Qwen2ForCausalLM(config)


def _gemma3(rows: int, ids: dict[str, int]) -> Any:
    import transformers as hf

    config = hf.Gemma3TextConfig(
        vocab_size=rows,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
        **_NARROW,
        **_roles(ids),
    )
    return hf.Gemma3ForCausalLM(config)


def _gpt2(rows: int, ids: dict[str, int]) -> Any:
    import transformers as hf

    config = hf.GPT2Config(vocab_size=rows, n_positions=128, n_embd=32, n_layer=2, n_head=4, **_roles(ids))
    return hf.GPT2LMHeadModel(config)


def _gpt_neox(rows: int, ids: dict[str, int]) -> Any:
    import transformers as hf

    return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(vocab_size=rows, **_NARROW, **_roles(ids)))


def _bert(rows: int, ids: dict[str, int]) -> Any:
    import transformers as hf

    return hf.BertForMaskedLM(hf.BertConfig(vocab_size=rows, **_NARROW, **_roles(ids, "pad")))


def _roberta(rows: int, ids: dict[str, int]) -> Any:
    import transformers as hf

    return hf.RobertaForMaskedLM(hf.RobertaConfig(vocab_size=rows, **_NARROW, **_roles(ids)))


def _t5(rows: int, ids: dict[str, int]) -> Any:
    import transformers as hf

    config = hf.T5Config(
        vocab_size=rows,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=ids.get("pad"),
        **_roles(ids, "pad", "eos"),
    )
    return hf.T5ForConditionalGeneration(config)


def _bart(rows: int, ids: dict[str, int]) -> Any:
    import transformers as hf

    config = hf.BartConfig(
        vocab_size=rows,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=128,
        decoder_start_token_id=ids.get("eos"),
        forced_eos_token_id=ids.get("eos"),
        **_roles(ids),
    )
    return hf.BartForConditionalGeneration(config)


_BUILDERS: dict[str, Callable[[int, dict[str, int]], Any]] = {
    "llama": _llama,
    "llama-tied": partial(_llama, tied=True),
    "qwen2": _qwen2,
    "gemma3": _gemma3,
    "gpt2": _gpt2,
    "gpt-neox": _gpt_neox,
    "bert": _bert,
    "roberta": _roberta,
    "t5": _t5,
    "bart": _bart,
}


def _randomise(model: Any) -> None:
    """Give every tensor values that are worth comparing: no zero biases, no equal rows, no norm weights of 1."""
    import torch

    norms = {id(p) for m in model.modules() if "norm" in type(m).__name__.lower() for p in m.parameters()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if id(parameter) in norms and name.endswith("weight"):
                parameter.add_(torch.randn_like(parameter) * 0.05)
            else:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
        for name, buffer in model.named_buffers():
            if name.endswith("final_logits_bias"):
                buffer.copy_(torch.randn_like(buffer) * 0.1)
