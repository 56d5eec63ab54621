"""Judges an ensemble on texts: each member, the mix of them, and where wanted the models that they were made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tokswap.ensemble.members import read_ensemble
from tokswap.ensemble.mix import load_ensemble
from tokswap.errors import InputError
from tokswap.evaluation.evaluate import Evaluation, Run, conclude, release, run
from tokswap.evaluation.losses import check_device, load_model
from tokswap.storage.resolve import resolve_model
from tokswap.tokenizer.probes import PROMPTS

MIX = "the mix"


def evaluate_ensemble(
    folder: str | Path,
    texts: Mapping[str, str],
    *,
    weights: str | Sequence[float] | None = None,
    mix: str = "probabilities",
    sources: bool = False,
    dtype: str = "float32",
    device: str = "cpu",
    window: int = 512,
    overlap: int = 128,
    prompts: Sequence[str] = PROMPTS,
    tokens: int = 24,
    seed: int = 0,
    trust_remote_code: bool = False,
    progress: bool = False,
) -> Evaluation:
    """Judge an ensemble on texts; all members are in memory at once, the sources before them one by one.

    texts: name -> text. weights, mix: see `load_ensemble`. sources: judge the models that the members were made from too, each
    with its own tokenizer. The rest is as for `tokswap.evaluate`: all are judged on the same bytes. The Evaluation holds the
    sources, the members by their names, and the mix as `MIX`; its settings hold mix and weights.

    Raises UsageError bad-weights, bad-mix, bad-device, bad-window; InputError unknown-source where ensemble.json does not say what a
    member was made from, and for a model or text that cannot be judged.
    """
    from tqdm import tqdm

    check_device(device)
    ensemble = read_ensemble(folder)
    named: dict[str, Path] = {}
    if sources:
        nameless = [member.name for member in ensemble.members if not member.model]
        if nameless:
            message = f"ensemble.json does not say what these members were made from: {', '.join(nameless)}"
            raise InputError("unknown-source", message, "leave out --sources", folder=folder)
        named = {f"{m.model} (own tokenizer)": resolve_model(m.model) for m in ensemble.members}
    runs: dict[str, Run] = {}
    total = (len(named) + len(ensemble.members) + 1) * sum(len(text.encode("utf-8")) for text in texts.values())
    with tqdm(total=total, unit="B", unit_scale=True, disable=None if progress else True) as bar:

        def read(model: object, tokenizer: object) -> Run:
            return run(
                model, tokenizer, texts, window=window, overlap=overlap, prompts=prompts, tokens=tokens, done=bar.update
            )

        for name, path in named.items():
            bar.set_description(path.name)
            runs[name] = read(*load_model(path, dtype=dtype, device=device, trust_remote_code=trust_remote_code))
            release(device)
        model, tokenizer = load_ensemble(
            folder, weights=weights, mix=mix, dtype=dtype, device=device, trust_remote_code=trust_remote_code
        )
        for n, member in enumerate(ensemble.members):
            bar.set_description(member.name)
            runs[member.name] = read(model.members[n], tokenizer)
        bar.set_description(MIX)
        runs[MIX] = read(model, tokenizer)
    settings = {
        "dtype": dtype,
        "device": device,
        "window": window,
        "overlap": overlap,
        "tokens": tokens,
        "seed": seed,
        "mix": mix,
        "weights": {m.name: weight for m, weight in zip(ensemble.members, model.weights, strict=True)},
    }
    return conclude(runs, texts, settings, seed=seed)
