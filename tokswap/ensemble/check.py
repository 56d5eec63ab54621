"""Tests whether the members of an ensemble agree: on ids, sizes, ends of text, tokenization and chat templates."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokswap.checkpoint.nested_configs import text_config, token_ids
from tokswap.checkpoint.reader import Checkpoint, open_checkpoint
from tokswap.ensemble.agree import differences
from tokswap.ensemble.members import Ensemble, read_ensemble, vocabulary_digest
from tokswap.ensemble.mix_options import MIXES
from tokswap.errors import TokswapError, count_of
from tokswap.evaluation.checks import Check, check_empty
from tokswap.evaluation.models import check_device
from tokswap.options.kinds import typed
from tokswap.report.wording import listed
from tokswap.tokenizer.auto import usable_tokenizer
from tokswap.tokenizer.probes import PROMPTS, TEXTS
from tokswap.tokenizer.tokenizer import Tokenizer, read_tokenizer

_CHAT = (
    {"role": "user", "content": "Which ferry leaves at nine?\n\n"},
    {"role": "assistant", "content": "The second one:  it goes to the islands."},
    {"role": "user", "content": "Thanks! 👋🏽"},
)
_WHY_CAUSAL = "the members of an ensemble predict each token of a text from those before it"
_TOLERANCE = 1e-3
"""How far from 1 the sum of all probabilities may be."""


@typed
def check_ensemble(
    folder: str | Path, *, device: str = "cpu", dtype: str = "float32", trust_remote_code: bool = False
) -> list[Check]:
    """Test whether the predictions of an ensemble's members can be averaged. Every member is loaded.

    Args:
        folder: A folder with an ensemble.json.
        device: Where torch computes.
        dtype: Type that torch computes in: float32, bfloat16 or float16.
        trust_remote_code: Whether code that comes with a member may run.

    Returns:
        The checks.

    Raises:
        UsageError: bad-device.
        InputError: if there is no ensemble, or a member is not a causal language model.
    """
    check_device(device)
    ensemble = read_ensemble(folder)
    names = [member.name for member in ensemble.members]
    checkpoints = [open_checkpoint(ensemble.path_of(member)) for member in ensemble.members]
    for checkpoint in checkpoints:
        checkpoint.facts.require_causal(checkpoint.folder, _WHY_CAUSAL)
        checkpoint.facts.require_text_only(checkpoint.folder)
    tokenizers = [read_tokenizer(c.folder, trust_remote_code=trust_remote_code) for c in checkpoints]
    checks = [*_vocabulary_checks(ensemble, names, tokenizers), *_config_checks(names, checkpoints)]
    loaded = [usable_tokenizer(c.folder, trust_remote_code=trust_remote_code) for c in checkpoints]
    checks += [_text_check(names, loaded), _chat_check(names, loaded)]
    checks += _model_checks(ensemble, loaded[0], device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    return checks


def _vocabulary_checks(ensemble: Ensemble, names: Sequence[str], tokenizers: Sequence[Tokenizer]) -> Iterator[Check]:
    problems = []
    for name, tokenizer in zip(names[1:], tokenizers[1:], strict=True):
        found = differences(tokenizers[0], tokenizer)
        if found:
            problems.append(f"{names[0]} and {name} differ in {count_of(len(found), 'id')}: {listed(found)}")
    size = len(tokenizers[0].vocabulary)
    fine = f"{size:,} ids mean the same to all {len(names)} members"
    yield Check("vocabulary", not problems, "; ".join(problems) or fine)
    if ensemble.vocabulary:
        digest = vocabulary_digest(tokenizers[0].vocabulary)
        same = digest == ensemble.vocabulary
        detail = digest[:16] if same else f"{digest[:16]}; the members were prepared for {ensemble.vocabulary[:16]}"
        yield Check("as prepared", same, detail)
    added = [{entry["id"]: entry for entry in t.spec.get("added_tokens") or []} for t in tokenizers]
    wrong = sorted({i for other in added[1:] for i in {*added[0], *other} if added[0].get(i) != other.get(i)})
    yield check_empty("added tokens", "these ids differ in their entries", wrong, f"{len(added[0]):,} are the same")


def _config_checks(names: Sequence[str], checkpoints: Sequence[Checkpoint]) -> Iterator[Check]:
    sizes = [text_config(c.config, c.folder)[1]["vocab_size"] for c in checkpoints]
    rows = {matrix.rows for c in checkpoints for matrix in c.matrices if matrix.role != "per-layer"}
    sized = _same("vocab_size", names, sizes, "{:,}".format)
    if sized.ok and not rows <= set(sizes):
        sized = Check("vocab_size", False, f"{sized.detail}, and a vocabulary matrix has another number of rows")
    yield sized
    yield _same("eos", names, [_eos(c) for c in checkpoints], lambda ids: ", ".join(map(str, ids)) or "none")


def _eos(checkpoint: Checkpoint) -> list[int]:
    """Return the ids that end a text."""
    ids = token_ids(checkpoint.generation_config, "eos_token_id")
    return sorted(set(ids or token_ids(text_config(checkpoint.config)[1], "eos_token_id")))


def _text_check(names: Sequence[str], loaded: Sequence[Any]) -> Check:
    differ = []
    for name, text in TEXTS.items():
        ids = [tokenizer(text)["input_ids"] for tokenizer in loaded]
        differ += [f"{name} ({other})" for other, own in zip(names[1:], ids[1:], strict=True) if own != ids[0]]
    fine = f"{len(TEXTS)} texts, with the special tokens before and after them"
    return check_empty("same ids", "these texts are tokenized differently", differ, fine)


def _chat_check(names: Sequence[str], loaded: Sequence[Any]) -> Check:
    name = "chat template"
    without = [member for member, tokenizer in zip(names, loaded, strict=True) if not tokenizer.chat_template]
    if len(without) == len(names):
        return Check(name, True, "none has one")
    if without:
        return Check(name, False, f"these have none: {', '.join(without)}")
    try:
        rendered = [
            list(t.apply_chat_template(list(_CHAT), add_generation_prompt=True, return_dict=True)["input_ids"])
            for t in loaded
        ]
    except Exception as error:  # a template may raise whatever it likes
        return Check(name, False, f"it cannot be rendered: {error}")
    other = [member for member, ids in zip(names, rendered, strict=True) if ids != rendered[0]]
    return check_empty(name, "these render other ids", other, f"three turns are the same {len(rendered[0])} ids")


def _model_checks(
    ensemble: Ensemble, tokenizer: Any, *, device: str, dtype: str, trust_remote_code: bool
) -> Iterator[Check]:
    from tokswap.ensemble.mix import load_members

    try:
        model, _ = load_members(
            ensemble,
            ensemble.weights,
            mix=MIXES[0],
            dtype=dtype,
            device=device,
            trust_remote_code=trust_remote_code,
        )
    except TokswapError as error:
        yield Check("members load", False, f"{error.message}; {', '.join(error.where.values())}")
        return
    size = sum(parameter.numel() for parameter in model.parameters())
    yield Check("members load", True, f"{size / 1e6:,.1f} M parameters together, in {dtype}")
    for mix in MIXES:
        model.mix = mix
        yield _output_check(model, tokenizer)


def _output_check(model: Any, tokenizer: Any) -> Check:
    """Test that the mix predicts probabilities: finite ones that add up to 1."""
    import torch

    bad, farthest = [], 0.0
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)
        try:
            with torch.inference_mode():
                logits = model(ids).logits
        except (RuntimeError, IndexError) as error:  # an id past the last row, or matrices of two sizes
            bad.append(f"{prompt!r} ({str(error).splitlines()[0]})")
            continue
        total = float(logits.exp().sum(-1).sub(1).abs().max())
        if not torch.isfinite(logits).all() or not total < _TOLERANCE:
            bad.append(repr(prompt))
        farthest = max(farthest, total)
    fine = f"finite for {len(PROMPTS)} prompts; probabilities add up to 1 within {farthest:.0e}"
    return check_empty(f"averaged {model.mix}", "non-finite for", bad, fine)


def _same(name: str, members: Sequence[str], values: Sequence[Any], shown: Callable[[Any], str]) -> Check:
    """Return a check that holds if all members have the same value."""
    if all(value == values[0] for value in values):
        return Check(name, True, shown(values[0]))
    return Check(name, False, "; ".join(f"{member}: {shown(v)}" for member, v in zip(members, values, strict=True)))
