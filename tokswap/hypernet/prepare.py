"""Prepare a training: check it, and make the network, the optimizer and the batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tokswap.checkpoint.positions import longest_input_of
from tokswap.errors import InputError, UsageError
from tokswap.hypernet.base import Base, open_base
from tokswap.hypernet.batches import Batches, Corpus, Share
from tokswap.hypernet.config import HypernetConfig
from tokswap.hypernet.model import Network
from tokswap.hypernet.sampling import Sampler, Texts
from tokswap.hypernet.settings import TrainSettings
from tokswap.hypernet.steps import Trainer
from tokswap.hypernet.surface import Surface
from tokswap.options.launcher import check_launcher
from tokswap.seeds import own_seed
from tokswap.storage.resolve import resolve_model, short_name
from tokswap.tokenizer.byte_alphabet import byte_alphabet_spec
from tokswap.tokenizer.tokenizer import Tokenizer
from tokswap.tokenizer.vocabulary import Kind, Vocabulary

_CHARACTERS = 4
"""Characters of a text per token: enough to fill it, with little left over."""
_MEDIAN_NOISE = 1e-5
_BETAS = (0.9, 0.95)


def prepare(model: str, texts: Sequence[str | Path], settings: TrainSettings) -> Trainer:
    """Check a training and make everything that it needs.

    Args:
        model: The model to train for: a folder, hub id, alias or .gguf file.
        texts: Files, folders or patterns.
        settings: The settings of the run.

    Raises:
        UsageError: bad-setting, cannot-shard.
        InputError: missing-extra, missing-field, bad-text, empty-text, not-byte-level, unsupported-base, not-causal.
    """
    try:
        from accelerate import Accelerator
    except ImportError as error:
        hint = "`pip install 'tokswap[hypernet]'`"
        raise InputError("missing-extra", "training needs accelerate", hint) from error

    check_launcher()
    if settings.by_text and len(texts) < 2:
        raise UsageError("bad-setting", "--by-text takes several texts in turn, and there is one", "leave it out")
    corpora = [_corpus(names, settings) for names in ([[name] for name in texts] if settings.by_text else [texts])]
    accelerator = Accelerator(mixed_precision="no")  # accelerate allows one choice a process: see `Trainer.autocast`
    share = Share(accelerator.process_index, accelerator.num_processes)
    _check_share(settings, share)
    base = open_base(resolve_model(model), bf16=settings.bf16, device=accelerator.device)
    _check_length(settings, base)
    surface = _surface(base, settings, short_name(model))
    with own_seed(settings.seed):
        network = first_network(surface.config, base.source[torch.from_numpy(base.trained_ids)])
    parallel, optimizer = accelerator.prepare(network, _optimizer(network, settings))
    return Trainer(
        settings=settings,
        base=base,
        batches=Batches(settings=settings, base=base, surface=surface, corpora=corpora, share=share),
        network=network,
        parallel=parallel,
        accelerator=accelerator,
        optimizer=optimizer,
    )


def _corpus(names: Sequence[str | Path], settings: TrainSettings) -> Corpus:
    texts = Texts.read(names, _CHARACTERS * settings.length, settings.seed, key=settings.field)
    noise = (_MEDIAN_NOISE, settings.noise)
    return Corpus(texts, Sampler(size=settings.vocabulary, kept=settings.queue, noise=noise, seed=settings.seed))


def _check_share(settings: TrainSettings, share: Share) -> None:
    for flag, size in (("--batch", settings.batch), ("--identity-batch", settings.identity_batch)):
        if size % share.count:
            raise UsageError("bad-setting", f"{flag} must be a multiple of the {share.count} processes")


def _check_length(settings: TrainSettings, base: Base) -> None:
    positions = longest_input_of(base.model)
    most = (positions or 0) - (1 if base.mask is None else 2)  # besides bos, and an encoder's eos
    if positions is not None and positions > 0 and most < settings.length:
        raise UsageError("bad-setting", f"--length must be at most {most}: the model has {positions} positions")


def _surface(base: Base, settings: TrainSettings, name: str) -> Surface:
    """Return the model's tokenizer in the byte alphabet, with the config of a network for the model."""
    rows, width = len(base.source), settings.hidden or 2 * base.width
    spec = byte_alphabet_spec(base.tokenizer, rows)
    tokenizer = Tokenizer(path=base.folder, spec=spec, config={}, files={})
    pad = pad_id(base.tokenizer.vocabulary, len(tokenizer.vocabulary))
    config = HypernetConfig(
        n_embd=base.width,
        original_vocab_size=rows,
        hn_hidden_size=width,
        hn_intermediate_size=2 * width,
        hn_n_layers=settings.layers,
        hn_num_attention_heads=next(n for n in (width // 64, width // 32, 1) if n and width % n == 0),
        hn_surface_maxlen=settings.pieces,
        hn_n_extra_tokens=max(len(tokenizer.vocabulary), pad + 1) - rows,
        pad_token_id=pad,
        separate_out_embeddings=base.names.output is not None,
        hn_predict_bias=base.names.bias is not None,
        base_model=name,
    )
    return Surface(tokenizer, config)


def pad_id(vocabulary: Vocabulary, free: int) -> int:
    """Return an id that no text contains: pad, or else a special or reserved token, or else `free`."""
    if "pad" in vocabulary.roles:
        return vocabulary.roles["pad"]
    others = np.flatnonzero((vocabulary.kind == Kind.SPECIAL) | (vocabulary.kind == Kind.UNUSED))
    return int(others[0]) if len(others) else free


def first_network(config: HypernetConfig, rows: Tensor) -> Network:
    """Return a network with its first weights.

    It scales what it reads to unit variance, and its predictions to the mean and deviation of the source embeddings.

    Args:
        config: Its shape.
        rows: Source embeddings that the model has learnt, float32 [n, n_in].
    """
    network = Network(config)
    mean, deviation = rows.mean(dim=0), rows.std(dim=0).clamp(min=1e-6)
    scalers = [network.scaler, *([network.out_scaler] if config.separate_out_embeddings else [])]
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Embedding):
                module.weight.normal_(0.0, 0.02)
        network.in_scaler.w.copy_(1.0 / deviation[None])
        network.in_scaler.b.copy_(-(mean / deviation)[None])
        for n, scaler in enumerate(scalers):
            part = slice(n * config.n_embd, (n + 1) * config.n_embd)
            scaler.w.copy_(deviation[None, part])
            scaler.b.copy_(mean[None, part])
    return network


def _optimizer(network: Network, settings: TrainSettings) -> Any:
    """Return AdamW, with weight decay for matrices alone."""

    def is_matrix(parameter: Tensor) -> bool:
        return parameter.ndim > 1 and len(parameter) > 1

    matrices = [parameter for parameter in network.parameters() if is_matrix(parameter)]
    others = [parameter for parameter in network.parameters() if not is_matrix(parameter)]
    groups = [{"params": matrices, "weight_decay": settings.decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.rate, betas=_BETAS)
