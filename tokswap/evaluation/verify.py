"""Invariants of a written checkpoint, tested on the files and on the loaded model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.configs import token_ids
from tokswap.checkpoint.embeddings import Columns, EmbeddingSpace
from tokswap.checkpoint.matrices import configs, text_config
from tokswap.checkpoint.reader import Checkpoint, open_checkpoint
from tokswap.evaluation.losses import check_device
from tokswap.report.record import REPORT_NAME, Origin, read_origin
from tokswap.report.wording import listed
from tokswap.storage.trust import check_code
from tokswap.tokenizer.alignment import Reason
from tokswap.tokenizer.probes import PROMPTS, TEXTS
from tokswap.tokenizer.tokenizer import Tokenizer, auto_tokenizer, read_tokenizer

TOP = 50
"""Padding ids must stay out of this many most likely next tokens."""
_EXPLODED = 3.0


@dataclass(frozen=True)
class Check:
    """One invariant: its name, whether it holds, and what was seen."""

    name: str
    ok: bool
    detail: str


def verify_checkpoint(
    folder: str | Path, *, against: str | Path | None = None, device: str = "cpu", trust_remote_code: bool = False
) -> list[Check]:
    """Test a checkpoint: its files, its tokenizer, its rows, and the model as transformers loads it.

    against: the folder of the source model; then copied rows and every other tensor are compared with it bit for
    bit. The provenance of rows is read from tokswap.json where there is one.
    Raises InputError where the folder is no checkpoint at all, UsageError bad-device.
    """
    check_device(device)
    checkpoint = open_checkpoint(folder)
    tokenizer = read_tokenizer(checkpoint.folder, trust_remote_code=trust_remote_code)
    origin = read_origin(checkpoint.folder)
    checks = [*_config_checks(checkpoint, tokenizer), *_row_checks(checkpoint, tokenizer, origin)]
    try:
        loaded = auto_tokenizer(checkpoint.folder, trust_remote_code=trust_remote_code)
        checks += _tokenizer_checks(checkpoint, tokenizer, loaded)
    except Exception as error:  # a class that does not fit the files may fail in any way
        loaded = None
        checks.append(Check("AutoTokenizer", False, f"fails: {error}"))
    if against is not None:
        checks += _source_checks(checkpoint, open_checkpoint(against), origin)
    checks += _model_checks(checkpoint, tokenizer, loaded, origin, against, device, trust_remote_code)
    return checks


def _config_checks(checkpoint: Checkpoint, tokenizer: Tokenizer) -> Iterator[Check]:
    rows = checkpoint.matrices[0].rows
    size = text_config(checkpoint.config)[1]["vocab_size"]
    tokens = len(tokenizer.vocabulary)
    yield Check(
        "vocabulary size", rows == size and tokens <= rows, f"{tokens:,} ids, {rows:,} rows, vocab_size {size:,}"
    )
    wrong = []
    for where, config in (("config", checkpoint.config), ("generation_config", checkpoint.generation_config)):
        for path, child in configs(config):
            keys = [key for key in child if key.endswith(("_token_id", "_token_ids", "_token_index"))]
            if any(word in path for word in ("vision", "audio")):
                continue
            wrong += [f"{where}.{path}{key}" for key in keys for i in token_ids(child, key) if not -1 <= i < rows]
    yield Check("token ids in range", not wrong, ", ".join(wrong) or "every id of config and generation_config")


def _row_checks(checkpoint: Checkpoint, tokenizer: Tokenizer, origin: Origin) -> Iterator[Check]:
    for table in checkpoint.matrices:
        if table.role in ("bias", "lookup"):
            continue
        columns = Columns(checkpoint.raw_rows(table.names[0], table.axis), table.dtype)
        norms = EmbeddingSpace(tokenizer.vocabulary, [columns]).norms(np.arange(table.rows))
        name = f"{table.role} rows"
        bad = np.flatnonzero(~np.isfinite(norms))
        known = len(origin.source_of) == table.rows
        copied = origin.source_of >= 0 if known else np.zeros(table.rows, bool)
        zero = np.flatnonzero((norms == 0) & ~copied)
        typical = norms[copied & np.isfinite(norms)]
        limit = _EXPLODED * float(typical.max()) if len(typical) else 100.0 * float(np.nanmedian(norms))
        large = np.flatnonzero(norms > limit) if limit > 0 else np.zeros(0, np.int64)
        for problem, ids in (("not finite", bad), ("zero", zero), ("far too long", large)):
            if len(ids):
                some = ", ".join(map(str, ids[:5].tolist())) + (", ..." if len(ids) > 5 else "")
                yield Check(name, False, f"{len(ids):,} rows are {problem}: {some}")
        if not len(bad) + len(zero) + len(large):
            low, median, high = np.percentile(norms, [0, 50, 100])
            yield Check(name, True, f"finite; lengths {low:.3g} to {high:.3g}, median {median:.3g}")


def _tokenizer_checks(checkpoint: Checkpoint, tokenizer: Tokenizer, loaded: Any) -> list[Check]:
    differ, lossy, outside, unspelt = [], [], [], 0
    for name, text in TEXTS.items():
        ids = loaded(text, add_special_tokens=False)["input_ids"]
        if ids != tokenizer.encode(text):
            differ.append(name)
        if any(token >= checkpoint.matrices[0].rows for token in ids):
            outside.append(name)
        if loaded.unk_token_id in ids:
            unspelt += 1  # what the vocabulary cannot spell is lost, and what is left of it proves nothing
            continue
        once = loaded.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        again = loaded(once, add_special_tokens=False)["input_ids"]
        # A tokenizer may normalise a text; what it makes of its own output must not change any more.
        if loaded.decode(again, skip_special_tokens=True, clean_up_tokenization_spaces=False) != once:
            lossy.append(name)
    seen = f"{len(TEXTS) - unspelt} texts" + (f", {unspelt} more have characters it does not know" if unspelt else "")
    agrees = _outcome("cuts these otherwise than tokenizer.json", differ, "agrees with tokenizer.json")
    return [
        Check("AutoTokenizer", not differ, agrees),
        Check("tokenizer round trip", not lossy, _outcome("changed on the way", lossy, seen)),
        Check("ids in range", not outside, _outcome("ids past the table", outside, f"{len(TEXTS)} texts")),
    ]


def _source_checks(checkpoint: Checkpoint, source: Checkpoint, origin: Origin) -> Iterator[Check]:
    if len(origin.source_of) != checkpoint.matrices[0].rows:
        yield Check("copied rows", False, f"there is no {REPORT_NAME} that says which rows were copied")
    else:
        wrong: list[str] = []
        copied = np.flatnonzero(origin.source_of >= 0)
        compared = 0
        for table in checkpoint.matrices:
            for name in table.names:
                if name in origin.calibrated:
                    continue
                before = name if name in source.tensors else source.matrices[0].names[0]
                new, old = checkpoint.raw_rows(name, table.axis), source.raw_rows(before, table.axis)
                compared += 1
                for start in range(0, len(copied), 8192):
                    ids = copied[start : start + 8192]
                    if not np.array_equal(new[ids], old[origin.source_of[ids]]):
                        wrong.append(name)
                        break
        seen = f"{len(copied):,} rows of {compared} table(s) are the source's, bit for bit"
        if origin.calibrated:
            seen += f"; calibrated, so changed everywhere: {', '.join(origin.calibrated)}"
        yield Check("copied rows", not wrong, _outcome("differ from the source", wrong, seen))
    tables = {name for owner in (checkpoint, source) for table in owner.matrices for name in table.names}
    others = [name for name in source.tensors if name not in tables]
    lost = [name for name in others if name not in checkpoint.tensors]
    changed = [name for name in others if name not in lost and not _equal(checkpoint, source, name)]
    yield Check("no tensor lost", not lost, _outcome("missing", lost, f"{len(source.tensors)} tensors"))
    yield Check("other tensors", not changed, _outcome("changed", changed, f"{len(others)} are unchanged, bit for bit"))


def _equal(first: Checkpoint, second: Checkpoint, name: str) -> bool:
    a, b = first.tensors[name], second.tensors[name]
    same = (a.dtype, a.shape) == (b.dtype, b.shape)
    return same and all(x == y for x, y in zip(first.blocks(name), second.blocks(name), strict=True))


def _model_checks(
    checkpoint: Checkpoint,
    tokenizer: Tokenizer,
    loaded: Any,
    origin: Origin,
    against: str | Path | None,
    device: str,
    trust_remote_code: bool,
) -> Iterator[Check]:
    import transformers

    names = checkpoint.config.get("architectures") or ["AutoModel"]
    cls = getattr(transformers, names[0], transformers.AutoModel)
    try:
        check_code(checkpoint.folder, trust_remote_code)
        model, info = cls.from_pretrained(
            str(checkpoint.folder),
            output_loading_info=True,
            dtype="auto",
            local_files_only=True,
            trust_remote_code=trust_remote_code,
        )
    except Exception as error:  # whatever transformers says about the checkpoint is the finding
        yield Check("model loads", False, f"{names[0]}: {error}")
        return
    had = open_checkpoint(against).tensors if against is not None else None
    missing = [key for key in info["missing_keys"] if had is None or key in had]
    mismatched = [str(key) for key in info.get("mismatched_keys") or []]
    yield Check(
        "model loads",
        not missing and not mismatched,
        _outcome("tensors missing or of another shape", [*missing, *mismatched], names[0]),
    )
    if loaded is None:
        return
    try:
        yield from _running_checks(checkpoint, tokenizer, loaded, origin, model.to(device).eval())
    except Exception as error:  # an id past a table, say, fails deep inside the model
        yield Check("model runs", False, f"{type(error).__name__}: {error}")


def _running_checks(
    checkpoint: Checkpoint, tokenizer: Tokenizer, loaded: Any, origin: Origin, model: Any
) -> Iterator[Check]:
    import torch

    padding = np.concatenate(
        [
            np.arange(len(tokenizer.vocabulary), checkpoint.matrices[0].rows),
            np.flatnonzero(origin.reason == Reason.NEUTRAL),
        ]
    )
    bad, winners = [], []
    for prompt in PROMPTS:
        inputs = loaded(prompt, return_tensors="pt").to(model.device)
        inputs = {key: inputs[key] for key in ("input_ids", "attention_mask")}
        if model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = inputs["input_ids"][:, :1]
        with torch.inference_mode():
            output = model(**inputs)
        scores = output.logits if "logits" in output else output[0]
        if not torch.isfinite(scores).all():
            bad.append(prompt)
        elif "logits" in output and scores.shape[-1] >= 4 * TOP:
            best = scores[0, -1].float().topk(TOP).indices.cpu().numpy()
            winners += np.intersect1d(best, padding).tolist()
    yield Check("finite outputs", not bad, _outcome("not finite for", bad, f"{len(PROMPTS)} prompts"))
    if len(padding):
        detail = _outcome(
            f"ids among the {TOP} likeliest",
            sorted(set(winners)),
            f"{len(padding):,} ids, never among the {TOP} likeliest",
        )
        yield Check("padding never wins", not winners, detail)
    if model.can_generate():
        inputs = loaded(PROMPTS[0], return_tensors="pt").to(model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=16,
                do_sample=False,
            )
        begin = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        text = loaded.decode(output[0, begin:], skip_special_tokens=True)
        yield Check("greedy generation", output.shape[1] > begin, f"{PROMPTS[0]!r} -> {text!r}")


def _outcome(problem: str, items: list[Any], fine: str) -> str:
    """Say what is wrong with the first few items, or that all is well."""
    if not items:
        return fine
    return f"{problem}: {listed(items)}"
