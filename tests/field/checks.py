"""What must be true of a result, asked of plain transformers, tokenizers and safetensors.

Each check returns what is wrong, in words; an empty list is a result that is right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

CHAT = [
    {"role": "user", "content": "What is the weather in Ulm?"},
    {"role": "assistant", "content": "Rain, 7 degrees."},
    {"role": "user", "content": "And tomorrow?"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string", "description": "its name"}}},
    },
}
MOST_EXAMPLES = 3


@lru_cache(maxsize=4)
def load_tokenizer(folder: Path) -> Any:
    """Load a tokenizer as a user does. A class whose own code is missing is loaded by the generic class."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    try:
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        return PreTrainedTokenizerFast.from_pretrained(folder)


def what_a_result_follows(target: Path, texts: list[str]) -> Any:
    """Return the tokenizer whose ids a transplant has: tokenizer.json's where the class of its folder ignores it."""
    from transformers import PreTrainedTokenizerFast

    by_class = load_tokenizer(target)
    if not (target / "tokenizer.json").is_file():
        return by_class
    by_file = PreTrainedTokenizerFast.from_pretrained(target)
    unlike = same_tokens(by_file, by_class) or added_tokens(by_file) != added_tokens(by_class)
    unlike = unlike or not same_ids(by_file, by_class, texts)
    return by_class if unlike else by_file


def tokens_by_id(tokenizer: Any) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}


def added_tokens(tokenizer: Any) -> list[str]:
    return [str(token) for token in tokenizer.added_tokens_decoder.values()]


def roles(tokenizer: Any) -> dict[str, str]:
    """Return role -> token, with tokens of a model's own roles, and the list of further special tokens."""
    return {role: str(token) for role, token in tokenizer.special_tokens_map.items()}


def same_tokens(new: Any, old: Any) -> list[str]:
    """Compare the token of every id."""
    ours, theirs = tokens_by_id(new), tokens_by_id(old)
    wrong = sorted(index for index in ours.keys() | theirs.keys() if ours.get(index) != theirs.get(index))
    examples = [f"id {index} is {ours.get(index)!r}, not {theirs.get(index)!r}" for index in wrong[:MOST_EXAMPLES]]
    found = [f"{len(wrong)} ids have other tokens: {'; '.join(examples)}"] if wrong else []
    if len(new) != len(old):
        found.append(f"len(tokenizer) is {len(new)}, not {len(old)}")
    return found


def same_roles(new: Any, old: Any) -> list[str]:
    """Compare the special tokens by role."""
    ours, theirs = roles(new), roles(old)
    wrong = sorted(role for role in ours.keys() | theirs.keys() if ours.get(role) != theirs.get(role))
    return [f"{role} is {ours.get(role)!r}, not {theirs.get(role)!r}" for role in wrong]


def begins_with_bos(tokenizer: Any) -> bool:
    return tokenizer.bos_token_id is not None and tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id


def same_ids(new: Any, old: Any, texts: list[str], *, bos: bool = False) -> list[str]:
    """Compare the ids of texts, with and without special tokens.

    Args:
        new: The result's tokenizer.
        old: The one that it must agree with.
        texts: The texts.
        bos: Whether the result must begin texts with bos, which the other does not.
    """
    found = []
    for framed in (False, True):
        ours, theirs = (tokenizer(texts, add_special_tokens=framed)["input_ids"] for tokenizer in (new, old))
        if bos and framed:
            theirs = [[new.bos_token_id if new.bos_token_id is not None else new.eos_token_id, *ids] for ids in theirs]
        found += _differ(texts, ours, theirs, f"ids {'with' if framed else 'without'} special tokens")
    return found


def same_pieces(new: Any, old: Any, texts: list[str]) -> list[str]:
    """Compare the tokens of texts, whatever ids they have, with and without special tokens."""
    names, found = [tokens_by_id(new), tokens_by_id(old)], []
    if not texts:  # transformers takes an empty list for one empty text
        return []
    for framed in (False, True):
        encoded = [tokenizer(texts, add_special_tokens=framed)["input_ids"] for tokenizer in (new, old)]
        ours, theirs = ([[own[i] for i in ids] for ids in rows] for own, rows in zip(names, encoded, strict=True))
        found += _differ(texts, ours, theirs, f"tokens {'with' if framed else 'without'} special tokens")
    return found


def spelled_with(new: Any, old: Any, texts: list[str]) -> list[str]:
    """Return the texts whose tokens the result has: a trim need not keep others."""
    names, kept = tokens_by_id(old), new.get_vocab()
    return [text for text in texts if all(names[index] in kept for index in old(text)["input_ids"])]


def _differ(texts: list[str], ours: list[Any], theirs: list[Any], what: str) -> list[str]:
    wrong = [n for n in range(len(texts)) if ours[n] != theirs[n]]
    if not wrong:
        return []
    first = min(wrong, key=lambda n: len(texts[n]))
    mine, own = ours[first], theirs[first]
    at = next((k for k, (a, b) in enumerate(zip(mine, own, strict=False)) if a != b), min(len(mine), len(own)))
    told = f"{texts[first][:30]!r} from token {at}: {mine[at : at + 4]}, not {own[at : at + 4]}"
    return [f"{len(wrong)} of {len(texts)} texts have other {what}: {told}"]


def same_chats(new: Any, old: Any, *, markers: list[str] | None = None) -> list[str]:
    """Compare what every chat template makes of conversations, as tokens.

    Args:
        new: The result's tokenizer.
        old: The one that it must agree with.
        markers: Compare these tokens and the text only, as words of the text may have no token of their own any more.
    """
    templates = old.chat_template
    if not templates:
        return ["there is a chat template, and there was none"] if new.chat_template else []
    names = sorted(templates) if isinstance(templates, dict) else [None]
    found = []
    for name in names:
        for tools in (None, [TOOL]):
            ours, theirs = (_chat(tokenizer, name, tools, markers) for tokenizer in (new, old))
            if ours != theirs:
                found.append(f"a chat by template {name or 'default'} is {str(ours)[:80]}, not {str(theirs)[:80]}")
    return found


def _chat(tokenizer: Any, name: str | None, tools: list[Any] | None, markers: list[str] | None) -> Any:
    """Return the text of a conversation and its tokens, or the error of its template."""
    try:
        text = tokenizer.apply_chat_template(CHAT, chat_template=name, tools=tools, tokenize=False)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    names = tokens_by_id(tokenizer)
    tokens = [names[index] for index in tokenizer(text, add_special_tokens=False)["input_ids"]]
    return text, [token for token in tokens if markers is None or token in markers]


def load_model(folder: Path) -> Any:
    """Load a model by the class that its config names."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    return getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()


def fits(model: Any, tokenizer: Any) -> list[str]:
    """Compare rows and configs with the tokenizer."""
    found, size = [], max(len(tokenizer), 1 + max(tokenizer.get_vocab().values()))
    matrices = (model.get_input_embeddings(), model.get_output_embeddings())
    rows = {matrix.weight.shape[0] for matrix in matrices if matrix is not None}
    if len(rows) != 1 or min(rows) < size or rows != {model.config.vocab_size}:
        found.append(f"{sorted(rows)} rows, vocab_size {model.config.vocab_size}, {size} ids in the tokenizer")
    configs = [("config", model.config), ("generation_config", getattr(model, "generation_config", None))]
    for name, config in configs:
        for role in ("bos", "eos", "pad"):
            ids = getattr(config, f"{role}_token_id", None)
            ids = [] if ids is None else ids if isinstance(ids, list) else [ids]
            own = getattr(tokenizer, f"{role}_token_id")
            if any(not 0 <= index < min(rows) for index in ids):
                found.append(f"{name}.{role}_token_id {ids} is past the rows")
            elif role != "pad" and own is not None and ids and own not in ids:
                found.append(f"{name}.{role}_token_id is {ids}, the tokenizer's is {own}")
    return found


def runs(model: Any, tokenizer: Any, texts: list[str]) -> list[str]:
    """Run the model on texts, and generate: it must stop at the tokenizer's eos."""
    import torch

    found = []
    ids = [torch.tensor([row]) for row in tokenizer([text[:200] for text in texts])["input_ids"] if row][:8]
    with torch.no_grad():
        for row in ids:
            extra = {"decoder_input_ids": row} if model.config.is_encoder_decoder else {}
            if not torch.isfinite(model(row, **extra).logits).all():
                found.append(f"non-finite logits for ids {row[0, :5].tolist()}")
    if model.can_generate() and tokenizer.eos_token_id is not None:
        found += _stops(model, tokenizer.eos_token_id, ids[0])
    return found


def _stops(model: Any, eos: int, row: Any) -> list[str]:
    """Force eos as the third new token; generation must end there."""
    import torch
    from transformers import LogitsProcessor, LogitsProcessorList

    class Force(LogitsProcessor):  # type: ignore[misc]
        calls = 0

        def __call__(self, input_ids: Any, scores: Any) -> Any:
            self.calls += 1
            chosen = eos if self.calls == 3 else (eos + 1) % scores.shape[1]
            return torch.full_like(scores, -1e9).index_fill_(1, torch.tensor([chosen]), 0.0)

    force = Force()
    model.generate(row, max_new_tokens=9, do_sample=False, logits_processor=LogitsProcessorList([force]))
    return [] if force.calls <= 3 else [f"generation goes on after the tokenizer's eos ({eos})"]


def rows_of(model: Any) -> list[Any]:
    """Return the input embeddings, and lm_head where it is a matrix of its own, as arrays."""
    found = [model.get_input_embeddings().weight.detach().float().numpy()]
    head = model.get_output_embeddings()
    if head is not None and head.weight is not model.get_input_embeddings().weight:
        found.append(head.weight.detach().float().numpy())
    return found


def kept_rows(new: tuple[Any, Any], old: tuple[Any, Any]) -> list[str]:
    """Compare the rows of the tokens that a trim has kept. Each pair is (model, tokenizer)."""
    import numpy as np

    ids, before = new[1].get_vocab(), old[1].get_vocab()
    strange = [token for token in ids if token not in before]
    if strange:
        return [f"{len(strange)} tokens are new: {strange[:MOST_EXAMPLES]}"]
    ours, theirs = np.array(list(ids.values())), np.array([before[token] for token in ids])
    found = []
    for mine, own in zip(rows_of(new[0]), rows_of(old[0]), strict=True):
        wrong = (mine[ours] != own[theirs]).any(axis=1)
        if wrong.any():
            first = list(ids)[int(np.flatnonzero(wrong)[0])]
            found.append(f"{int(wrong.sum())} kept tokens have other rows, such as {first!r}")
    return found


def old_tokens(new: tuple[Any, Any], old: tuple[Any, Any]) -> list[str]:
    """Compare what an extension must not touch: the tokens of old ids, and their rows. Each pair is (model, tokenizer)."""
    names, before = tokens_by_id(new[1]), tokens_by_id(old[1])
    wrong = [token for index, token in before.items() if names.get(index) != token]
    found = [f"{len(wrong)} old tokens have other ids: {wrong[:MOST_EXAMPLES]}"] if wrong else []
    ids = [index for index in sorted(before) if index < len(rows_of(old[0])[0])]
    for mine, own in zip(rows_of(new[0]), rows_of(old[0]), strict=True):
        if (mine[ids] != own[ids]).any():
            found.append("old tokens have other rows")
    return found


def without_new(new: Any, old: Any, texts: list[str]) -> list[str]:
    """Return the texts that hold no new token. A token on the way to a word may stand in others, but in few."""
    known = tokens_by_id(old).keys()
    found = [text for text in texts if known >= set(new(text)["input_ids"])]
    assert len(found) > 0.95 * len(texts), f"only {len(found)} of {len(texts)} texts hold no new token"
    return found


def new_words(new: Any, old: Any, words: Iterable[str]) -> list[str]:
    """Find words that are no single new token inside a text."""
    known, found = tokens_by_id(old), []
    for word in words:
        ids = [index for index in new(f"a {word} b", add_special_tokens=False)["input_ids"] if index not in known]
        if len(ids) != 1 or new.decode(ids).strip() != word:
            found.append(f"{word} is {new.convert_ids_to_tokens(ids)}")
    return found


def kept_outputs(new: tuple[Any, Any], old: tuple[Any, Any], texts: list[str]) -> list[str]:
    """Compare logits of kept tokens before and after a trim. Each pair is (model, tokenizer)."""
    import torch

    ids, before = new[1].get_vocab(), old[1].get_vocab()
    shared = [token for token in ids if token in before]
    ours, theirs = [ids[token] for token in shared], [before[token] for token in shared]
    for text in texts[:4]:
        logits = []
        for (model, tokenizer), columns in ((new, ours), (old, theirs)):
            row = torch.tensor([tokenizer(text[:200])["input_ids"]])
            extra = {"decoder_input_ids": row} if model.config.is_encoder_decoder else {}
            with torch.no_grad():
                logits.append(model(row, **extra).logits[0][:, columns])
        if logits[0].shape != logits[1].shape or not torch.allclose(*logits, rtol=1e-3, atol=1e-4):
            return [f"other logits for {text[:40]!r}"]
    return []


def kept_added(new: Any, old: Any) -> list[str]:
    """Compare added tokens: a trim keeps them all."""
    lost = sorted(set(added_tokens(old)) - set(new.get_vocab()))
    return [f"{len(lost)} added tokens are gone: {lost[:MOST_EXAMPLES]}"] if lost else []


def copied_rows(new: tuple[Any, Any], source: tuple[Any, Any]) -> list[str]:
    """Compare rows of a transplant with the source's, for texts that both tokenizers read as one and the same token."""
    found = []
    pairs = {(mine, own): text for text in _short() for mine, own in _same_token(new[1], source[1], text)}
    for mine, own in zip(rows_of(new[0]), rows_of(source[0]), strict=False):
        wrong = [text for (a, b), text in pairs.items() if (mine[a] != own[b]).any()]
        if wrong:
            found.append(f"{len(wrong)} of {len(pairs)} shared tokens have no copied row: {wrong[:MOST_EXAMPLES]}")
    return found


def _short() -> Iterator[str]:
    yield from (chr(code) for code in (*range(33, 127), *range(0xC0, 0x180), 10, 9))
    yield from (
        "  ",
        "   ",
        "    ",
        "\n\n",
        "\t\t",
        " the",
        " a",
        " of",
        " and",
        "the",
        "ing",
        "er",
        " x",
        "....",
        "==",
    )


def _same_token(new: Any, old: Any, text: str) -> Iterator[tuple[int, int]]:
    """Yield the ids of a text, where it is one token of the same bytes in both tokenizers."""
    mine, own = (tokenizer(text, add_special_tokens=False)["input_ids"] for tokenizer in (new, old))
    if len(mine) == len(own) == 1:
        names = [_plain(tokenizer, ids[0]) for tokenizer, ids in ((new, mine), (old, own))]
        if names[0] == names[1] == text:
            yield mine[0], own[0]


def _plain(tokenizer: Any, index: int) -> str:
    """Return a token as text. In WordPiece, which knows no spaces, a token that begins a word stands for a space too."""
    token = str(tokenizer.convert_ids_to_tokens(index))
    if index in tokenizer.added_tokens_decoder:
        return token
    backend = tokenizer.backend_tokenizer
    if type(backend.model).__name__ == "WordPiece":
        return token.removeprefix("##") if token.startswith("##") else " " + token
    if backend.decoder is not None and b'"ByteLevel"' in backend.decoder.__getstate__():
        return str(backend.decoder.decode([token]))
    return token.replace("▁", " ")


def byte_rows(model: Any, tokenizer: Any) -> list[str]:
    """Find byte tokens (<0x41>) with exactly the row of the normal piece (A): greedy decoding would write them."""
    ids = tokenizer.get_vocab()
    pairs = [
        (ids[f"<0x{code:02X}>"], ids[chr(code)])
        for code in range(33, 127)
        if f"<0x{code:02X}>" in ids and chr(code) in ids
    ]
    same = [(a, b) for a, b in pairs if all((matrix[a] == matrix[b]).all() for matrix in rows_of(model))]
    return [f"{len(same)} byte tokens have the row of their normal piece"] if same else []
