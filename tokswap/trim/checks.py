"""What a trim has changed, measured on the written folder before it takes its place: tokens, and the model's outputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.errors import InputError
from tokswap.storage.trust import check_code
from tokswap.tokenizer.families import WORDPIECE
from tokswap.tokenizer.tokenizer import Tokenizer, auto_tokenizer
from tokswap.tokenizer.vocabulary import Kind
from tokswap.trim.chat import renderings
from tokswap.trim.corpora import blocks
from tokswap.trim.rebuild import Trimmed

_PIECE = 80
"""Characters of a piece of text that is compared; in a long one some rare token would hide all others."""
_RELOADED = 400
_TEXTS, _TOKENS = 4, 96


def token_figures(before: Tokenizer, trimmed: Trimmed, texts: Sequence[str]) -> dict[str, Any]:
    """Cut texts with both tokenizers, whole and in pieces.

    Returns plain data: tokens_kept (share), tokens_per_byte, unknown and byte_fallback (shares of the tokens), the latter three
    as [before, after]; pieces, kept (those whose tokens are all kept) and exact (those of them that are cut as before).
    A WordPiece word that was unknown as a whole may be known now, so pieces with an unknown token do not count there.
    """
    pieces = [*texts, *_pieces(texts)]
    old, new = before.encode_batch(pieces), trimmed.tokenizer.encode_batch(pieces)
    gone = np.ones(len(before.vocabulary), bool)
    gone[trimmed.kept] = False
    whole = [np.array(row, np.int64) for row in old[: len(texts)]]
    tokens = max(sum(map(len, whole)), 1)
    lost = sum(int(gone[row].sum()) for row in whole)
    if before.family == WORDPIECE and "unk" in before.vocabulary.roles:
        gone[before.vocabulary.roles["unk"]] = True
    kept = [not gone[np.array(row, np.int64)].any() for row in old]
    exact = [k and a == trimmed.kept[b].tolist() for a, b, k in zip(old, new, kept, strict=True)]
    size = max(sum(len(text.encode("utf-8", "surrogatepass")) for text in texts), 1)
    sides = ((old[: len(texts)], before), (new[: len(texts)], trimmed.tokenizer))
    return {
        "tokens_kept": round(1 - lost / tokens, 6),
        "tokens_per_byte": [round(sum(map(len, rows)) / size, 5) for rows, _ in sides],
        "unknown": [_share(rows, _unknown(tokenizer)) for rows, tokenizer in sides],
        "byte_fallback": [_share(rows, _bytes(tokenizer)) for rows, tokenizer in sides],
        "pieces": len(pieces),
        "kept": sum(kept),
        "exact": sum(exact),
    }


def _pieces(texts: Sequence[str]) -> list[str]:
    """Texts in pieces of a line or less, without the newlines at their edges, which other tokens may stand for there."""
    found = (piece.strip("\n") for text in texts for piece in blocks(text, _PIECE))
    return [piece for piece in found if piece]


def reload_figures(source: Path, folder: Path, trimmed: Trimmed, texts: Sequence[str], trusted: bool) -> dict[str, Any]:
    """Cut texts as a user of each folder would, by AutoTokenizer with its special tokens.

    Returns plain data: pieces whose tokens are all kept, how many of them are exact, how many ids are outside the tables,
    and for conversations in the words of the chat template: how many there are, and how many are the same tokens.
    """
    old, new = (auto_tokenizer(path, trust_remote_code=trusted) for path in (source, folder))
    kept = set(trimmed.kept.tolist())
    outside = 0

    def agree(pieces: Sequence[str]) -> list[bool]:
        nonlocal outside
        found = []
        for piece in pieces:
            before, after = old(piece)["input_ids"], new(piece)["input_ids"]
            outside += sum(token >= len(trimmed.kept) for token in after)
            if kept.issuperset(before) and old.unk_token_id not in before:
                found.append(before == [trimmed.kept[token] if token < len(trimmed.kept) else -1 for token in after])
        return found

    pieces = _pieces(texts)
    exact, chats = agree(pieces[:: max(1, len(pieces) // _RELOADED)]), agree(renderings(trimmed.tokenizer))
    return {
        "pieces": len(exact),
        "exact": sum(exact),
        "outside": outside,
        "chats": len(chats),
        "chats_equal": sum(chats),
    }


def unreachable(tokenizer: Tokenizer) -> int:
    """Count the normal tokens that no text is cut into: given a token's own text, the tokenizer takes other tokens."""
    vocabulary = tokenizer.vocabulary
    ids = np.flatnonzero(vocabulary.kind == Kind.NORMAL).tolist()
    cut = tokenizer.tokenize_bytes([vocabulary.token_bytes[token] for token in ids])
    return sum(row != [token] for token, row in zip(ids, cut, strict=True))


def model_figures(
    source: Path,
    folder: Path,
    architecture: str,
    source_of: np.ndarray,
    ids: Sequence[Sequence[int]],
    device: str,
    trusted: bool = False,
) -> dict[str, Any]:
    """Run both models, one after the other, on the same tokens. ids: sequences of old ids, all of them kept.

    Returns plain data: tokens, hidden_states (whether every one of them is equal bit for bit), and for a model with a
    head: logit_difference (the largest on kept ids), removed_mass (mean probability of removed ids before the trim),
    argmax_agreement (share of positions whose likeliest token is the same).
    """
    import torch

    new_of = {int(old): new for new, old in reversed(list(enumerate(source_of.tolist())))}
    hidden, logits = _outputs(source, architecture, ids, device, trusted)
    translated = [[new_of[token] for token in row] for row in ids]
    hidden_after, logits_after = _outputs(folder, architecture, translated, device, trusted)
    equal = all(torch.equal(a, b) for a, b in zip(hidden, hidden_after, strict=True))
    result: dict[str, Any] = {"tokens": sum(map(len, ids)), "hidden_states": len(hidden), "hidden_states_equal": equal}
    if not logits:
        return result
    kept = torch.from_numpy(source_of.astype(np.int64))
    tokens = kept >= 0
    distinct = torch.from_numpy(np.unique(source_of[source_of >= 0]).astype(np.int64))
    worst, mass, agree, count = 0.0, 0.0, 0, 0
    for before, after in zip(logits, logits_after, strict=True):
        worst = max(worst, float((before[:, kept[tokens]] - after[:, tokens]).abs().max()))
        share = torch.softmax(before.double(), -1)
        mass += float((1 - share[:, distinct].sum(-1)).clamp(min=0).sum())
        agree += int((before.argmax(-1) == kept[after.argmax(-1)]).sum())
        count += len(before)
    return result | {
        "logit_difference": worst,
        "removed_mass": mass / count,
        "argmax_agreement": agree / count,
    }


def sequences(before: Tokenizer, trimmed: Trimmed, texts: Sequence[str]) -> list[list[int]]:
    """Return a few sequences of kept old ids to run a model on."""
    kept = set(trimmed.kept.tolist())
    leading = [int(trimmed.kept[trimmed.tokenizer.vocabulary.roles["bos"]])] if trimmed.tokenizer.adds_bos else []
    step = max(1, len(texts) // _TEXTS)
    rows = [[token for token in before.encode(text[:4096]) if token in kept] for text in texts[::step][:_TEXTS]]
    return [leading + row[:_TOKENS] for row in rows if row]


def _outputs(
    folder: Path, architecture: str, ids: Sequence[Sequence[int]], device: str, trusted: bool
) -> tuple[list[Any], list[Any]]:
    """Return the hidden states and the float32 logits of some sequences."""
    import torch
    import transformers

    check_code(folder, trusted)
    cls = getattr(transformers, architecture, transformers.AutoModel)
    model = aligned(cls.from_pretrained(str(folder), dtype="auto", local_files_only=True).to(device).eval())
    accepted = inspect.signature(model.forward).parameters
    hidden: list[Any] = []
    logits: list[Any] = []
    for row in ids:
        batch = torch.tensor([list(row)], device=device)
        more: dict[str, Any] = {"decoder_input_ids": batch} if model.config.is_encoder_decoder else {}
        if "use_cache" in accepted:
            more["use_cache"] = False
        try:
            with torch.inference_mode():
                output = model(input_ids=batch, output_hidden_states=True, **more)
        except Exception as error:  # a model of speech or pictures may want more than tokens; or memory is short
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            hint = "--check tokens leaves the comparison of outputs out"
            raise InputError("cannot-run", f"{architecture} does not run on these tokens: {reason}", hint) from error
        for name in ("hidden_states", "encoder_hidden_states", "decoder_hidden_states", "last_hidden_state"):
            hidden += _tensors(output.get(name))
        if output.get("logits") is not None and output.logits.dim() == 3:
            logits.append(output.logits[0].float().cpu())
    return [state.cpu() for state in hidden], logits


def aligned(model: Any) -> Any:
    """Give every tensor of a model memory of its own where it does not begin on a multiple of 64 bytes; returns the model.

    Weights stay where their file is mapped, and sums over numbers that begin elsewhere may be rounded otherwise. In two
    files the same tensor begins elsewhere, so the same model could be taken for another.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.data_ptr() % 64:
            tensor.data = tensor.data.clone()
    return model


def _tensors(states: Any) -> list[Any]:
    """Return the tensors of a tuple in order; Pegasus-X has tuples inside."""
    if isinstance(states, (tuple, list)):
        return [tensor for part in states for tensor in _tensors(part)]
    return [] if states is None else [states]


def _share(rows: Sequence[Sequence[int]], ids: set[int]) -> float:
    total = sum(map(len, rows))
    return round(sum(token in ids for row in rows for token in row) / max(total, 1), 6)


def _unknown(tokenizer: Tokenizer) -> set[int]:
    return {tokenizer.vocabulary.roles["unk"]} if "unk" in tokenizer.vocabulary.roles else set()


def _bytes(tokenizer: Tokenizer) -> set[int]:
    return set(np.flatnonzero(tokenizer.vocabulary.kind == Kind.BYTE).tolist())


def failures(checks: Mapping[str, Any]) -> list[str]:
    """Say which figures of a trim are not what they must be."""
    found = []
    for name in ("corpus", "held_out"):
        figures = checks.get(name)
        if figures and figures["exact"] != figures["kept"]:
            wrong = figures["kept"] - figures["exact"]
            found.append(f"{wrong:,} of {figures['kept']:,} pieces of text are cut otherwise than before")
    loaded = checks.get("reloaded")
    if loaded and loaded["exact"] != loaded["pieces"]:
        wrong = loaded["pieces"] - loaded["exact"]
        found.append(f"AutoTokenizer cuts {wrong:,} of {loaded['pieces']:,} pieces of text otherwise than before")
    if loaded and loaded["chats_equal"] != loaded["chats"]:
        found.append("the chat template's conversations are cut otherwise than before")
    if loaded and loaded["outside"]:
        found.append(f"AutoTokenizer gives {loaded['outside']:,} ids that have no row")
    model = checks.get("model")
    if model and not model["hidden_states_equal"]:
        found.append("the hidden states of the model are not those of the source")
    return found
