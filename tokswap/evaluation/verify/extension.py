"""Whether the new tokens of an extension are alive: how likely each is, beside the tokens whose place it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.evaluation.checks import Check
from tokswap.evaluation.verify.folder import Folder
from tokswap.evaluation.verify.reference import Reference
from tokswap.storage.documents import find_files

_CHARACTERS, _CONTEXT, _MOST = 60_000, 48, 32
"""Of the text, the end is read; tokens before a new token; new tokens that are tried."""
_PLAIN = ("", ".txt", ".md", ".py")
_ALIVE = 1e-2
"""A token is alive if it is at least this likely beside its pieces."""


def alive_check(
    folders: tuple[Folder, Folder], models: tuple[Any, Any], reference: Reference, plan: Mapping[str, Any]
) -> Iterator[Check]:
    """Compare the probability of new tokens with that of their pieces before the extension, in the same places.

    A row can have the right norm and still never be predicted. Half of the tokens that are tried must be alive.

    Args:
        folders: The result and its source model.
        models: Both models.
        reference: The source's tokenizer, and the new ids.
        plan: What was planned: it names the text that the tokens were chosen by.
    """
    text = _text(plan)
    if not text or models[0].config.is_encoder_decoder or not models[0].can_generate():
        return
    gains = np.array(list(_gains(folders, models, reference, text)))
    if not len(gains):
        return
    alive = int((gains > np.log(_ALIVE)).sum())
    detail = (
        f"{alive} of {len(gains)} are at least {_ALIVE:g} times as likely as their pieces; the median is "
        f"{np.exp(np.median(gains)):,.1f} times"
    )
    yield Check("new tokens alive", 2 * alive >= len(gains), detail)


def _text(plan: Mapping[str, Any]) -> str:
    """The end of the text that tokens were chosen by, where its file is still there and plain text."""
    for name in dict(plan.get("options") or {}).get("corpora") or ():
        for path in map(Path, find_files(str(name))):
            if path.suffix in _PLAIN and path.is_file():
                return path.read_text(encoding="utf-8", errors="replace")[-_CHARACTERS:]
    return ""


def _gains(folders: tuple[Folder, Folder], models: tuple[Any, Any], reference: Reference, text: str) -> Iterator[float]:
    """Yield the log of the probability of each new token over that of its pieces, in nats."""
    (after, before), ids = folders, folders[0].encode(text)
    first: dict[int, int] = {}
    for place, token in enumerate(ids):
        if token in reference.added and place >= _CONTEXT:
            first.setdefault(token, place)
    places = list(first.values())
    for place in places[:: max(1, len(places) // _MOST)][:_MOST]:
        context, whole = ids[place - _CONTEXT : place], ids[place - _CONTEXT : place + 1]
        texts = [_decoded(after, one) for one in (context, whole)]
        old, pieces = (before.encode(one) for one in texts)
        if texts[1].startswith(texts[0]) and pieces[: len(old)] == old and len(pieces) > len(old):
            yield _score(after, models[0], context, whole[-1:]) - _score(before, models[1], old, pieces[len(old) :])


def _decoded(folder: Folder, ids: Sequence[int]) -> str:
    return str(folder.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _score(folder: Folder, model: Any, context: Sequence[int], tokens: Sequence[int]) -> float:
    """The log probability of some tokens after others, in nats."""
    import torch

    bos = folder.tokenizer.bos_token_id
    lead = [bos] if bos is not None and folder.encode("a", special=True)[:1] == [bos] else []
    row = torch.tensor([[*lead, *context, *tokens]], device=model.device)
    with torch.inference_mode():
        logits = model(row).logits[0, -len(tokens) - 1 : -1].float()
    return float(logits.log_softmax(-1).gather(1, row[0, -len(tokens) :, None]).sum())
