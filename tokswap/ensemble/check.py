"""Whether the members of an ensemble agree: on every id, on sizes, on ends of texts, and on how texts are cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokswap.checkpoint.configs import token_ids
from tokswap.checkpoint.matrices import text_config
from tokswap.checkpoint.reader import Checkpoint, open_checkpoint
from tokswap.ensemble.agree import differences
from tokswap.ensemble.members import Ensemble, check_kind, read_ensemble, vocabulary_digest
from tokswap.errors import TokswapError
from tokswap.evaluation.losses import check_device
from tokswap.evaluation.verify import Check
from tokswap.report.wording import listed
from tokswap.tokenizer.probes import PROMPTS, TEXTS
from tokswap.tokenizer.tokenizer import Tokenizer, auto_tokenizer, read_tokenizer

_CHAT = (
    {"role": "user", "content": "Which ferry leaves at nine?\n\n"},
    {"role": "assistant", "content": "The second one:  it goes to the islands."},
    {"role": "user", "content": "Thanks! 👋🏽"},
)


def check_ensemble(
    folder: str | Path, *, device: str = "cpu", dtype: str = "float32", trust_remote_code: bool = False
) -> list[Check]:
    """Test whether the members of a folder with an ensemble.json can be averaged; every member is loaded.

    Raises InputError where there is no ensemble or a member is no model, UsageError bad-device.
    """
    check_device(device)
    ensemble = read_ensemble(folder)
    names = [member.name for member in ensemble.members]
    checkpoints = [open_checkpoint(ensemble.path_of(member)) for member in ensemble.members]
    for checkpoint in checkpoints:
        check_kind(checkpoint)
    tokenizers = [read_tokenizer(c.folder, trust_remote_code=trust_remote_code) for c in checkpoints]
    checks = [*_vocabulary_checks(ensemble, names, tokenizers), *_config_checks(names, checkpoints)]
    loaded = [auto_tokenizer(c.folder, trust_remote_code=trust_remote_code) for c in checkpoints]
    checks += _text_checks(names, loaded)
    checks += _model_checks(ensemble, loaded[0], device, dtype, trust_remote_code)
    return checks


def _vocabulary_checks(ensemble: Ensemble, names: Sequence[str], tokenizers: Sequence[Tokenizer]) -> Iterator[Check]:
    problems = []
    for name, tokenizer in zip(names[1:], tokenizers[1:], strict=True):
        found = differences(tokenizers[0], tokenizer)
        if found:
            problems.append(f"{len(found):,} ids differ between {names[0]} and {name}: {listed(found)}")
    size = len(tokenizers[0].vocabulary)
    yield Check(
        "vocabulary", not problems, "; ".join(problems) or f"{size:,} ids mean the same to all {len(names)} members"
    )
    if ensemble.vocabulary:
        digest = vocabulary_digest(tokenizers[0].vocabulary)
        same = digest == ensemble.vocabulary
        detail = digest[:16] if same else f"{digest[:16]}, and the members were prepared for {ensemble.vocabulary[:16]}"
        yield Check("as prepared", same, detail)
    added = [{entry["id"]: entry for entry in t.spec.get("added_tokens") or []} for t in tokenizers]
    wrong = sorted({i for other in added[1:] for i in {*added[0], *other} if added[0].get(i) != other.get(i)})
    detail = (
        f"these ids differ or are treated otherwise: {listed(wrong)}" if wrong else f"{len(added[0]):,} are the same"
    )
    yield Check("added tokens", not wrong, detail)


def _config_checks(names: Sequence[str], checkpoints: Sequence[Checkpoint]) -> Iterator[Check]:
    sizes = [text_config(c.config, c.folder)[1]["vocab_size"] for c in checkpoints]
    rows = [table.rows for c in checkpoints for table in c.matrices if table.role != "per-layer"]
    yield _same("vocab_size", names, sizes, "{:,}".format, set(rows) <= set(sizes))
    eos = [
        sorted(
            set(token_ids(c.generation_config, "eos_token_id") or token_ids(text_config(c.config)[1], "eos_token_id"))
        )
        for c in checkpoints
    ]
    yield _same("eos", names, eos, lambda ids: ", ".join(map(str, ids)) or "none")


def _text_checks(names: Sequence[str], loaded: Sequence[Any]) -> Iterator[Check]:
    differ = []
    for name, text in TEXTS.items():
        ids = [tokenizer(text)["input_ids"] for tokenizer in loaded]
        differ += [f"{name} ({other})" for other, own in zip(names[1:], ids[1:], strict=True) if own != ids[0]]
    fine = f"{len(TEXTS)} texts, with what comes before and after them"
    yield Check("same ids", not differ, f"these are cut otherwise: {listed(differ)}" if differ else fine)
    templates = [tokenizer.chat_template for tokenizer in loaded]
    if not any(templates):
        yield Check("chat template", True, "none has one")
        return
    without = [name for name, template in zip(names, templates, strict=True) if not template]
    if without:
        yield Check("chat template", False, f"these have none: {', '.join(without)}")
        return
    try:
        rendered = [
            t.apply_chat_template(list(_CHAT), add_generation_prompt=True, return_dict=True)["input_ids"]
            for t in loaded
        ]
    except Exception as error:  # a template may raise whatever it likes
        yield Check("chat template", False, f"it cannot be rendered: {error}")
        return
    other = [name for name, ids in zip(names, rendered, strict=True) if list(ids) != list(rendered[0])]
    fine = f"three turns are the same {len(rendered[0])} ids"
    yield Check("chat template", not other, f"these render other ids: {', '.join(other)}" if other else fine)


def _model_checks(
    ensemble: Ensemble, tokenizer: Any, device: str, dtype: str, trust_remote_code: bool
) -> Iterator[Check]:
    import torch

    from tokswap.ensemble.mix import MIXES, load_members

    try:
        model, _ = load_members(ensemble, ensemble.weights, MIXES[0], dtype, device, trust_remote_code)
    except TokswapError as error:
        yield Check("members load", False, f"{error.message}; {', '.join(error.where.values())}")
        return
    size = sum(parameter.numel() for parameter in model.parameters())
    yield Check("members load", True, f"{size / 1e6:,.1f} M parameters together, in {dtype}")
    for mix in MIXES:
        model.mix = mix
        bad, farthest = [], 0.0
        for prompt in PROMPTS:
            ids = tokenizer(prompt, return_tensors="pt")["input_ids"].to(model.device)
            try:
                with torch.inference_mode():
                    logits = model(ids).logits
            except (RuntimeError, IndexError) as error:  # an id past a table, tables of two sizes
                bad.append(f"{prompt!r} ({str(error).splitlines()[0]})")
                continue
            total = float(logits.exp().sum(-1).sub(1).abs().max())
            if not torch.isfinite(logits).all() or not total < 1e-3:
                bad.append(repr(prompt))
            farthest = max(farthest, total)
        fine = f"finite for {len(PROMPTS)} prompts; probabilities add up to 1 within {farthest:.0e}"
        yield Check(f"averaged {mix}", not bad, f"not finite for {listed(bad)}" if bad else fine)


def _same(
    name: str, members: Sequence[str], values: Sequence[Any], shown: Callable[[Any], str], more: bool = True
) -> Check:
    if all(value == values[0] for value in values):
        return Check(
            name, more, shown(values[0]) if more else f"{shown(values[0])}, and a table has another number of rows"
        )
    return Check(name, False, "; ".join(f"{member}: {shown(v)}" for member, v in zip(members, values, strict=True)))
