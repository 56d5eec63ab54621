"""Whether an engine would take one model as the draft of another: the engines' own rules, read off the files of both.

No engine is run. The rules are those of vLLM (`draft_model`), llama.cpp (`common/speculative.cpp`), transformers
(assisted generation) and mlx-lm, as of 2026; the last rule is tokswap's own and the only one under which every id means
the same to both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tokswap.checkpoint.configs import token_ids
from tokswap.checkpoint.matrices import text_config
from tokswap.storage.json_files import read_json
from tokswap.tokenizer.families import BYTE_LEVEL, SENTENCEPIECE, UNIGRAM, WORDPIECE
from tokswap.tokenizer.probes import TEXTS
from tokswap.tokenizer.tokenizer import Tokenizer, auto_tokenizer, read_tokenizer
from tokswap.tokenizer.vocabulary import Vocabulary

_LLAMA_TYPES = {BYTE_LEVEL: "BPE", SENTENCEPIECE: "SPM", UNIGRAM: "UGM", WORDPIECE: "WPM"}
_LLAMA_DIFFERENCE = 128
_LLAMA_FIRST = 5
_SHOWN = 10
CHAT = (
    {"role": "user", "content": "What is 7 times 6?"},
    {"role": "assistant", "content": "7 times 6 is 42."},
    {"role": "user", "content": "Und auf Deutsch?"},
)
"""A conversation that every chat template can render."""


@dataclass(frozen=True)
class Verdict:
    """What one engine would say to a draft. reasons: why it would not take it, or why it should not be used; () if fine.

    rule: what the engine asks for, in plain words.
    """

    engine: str
    rule: str
    reasons: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether the rule is met."""
        return not self.reasons

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"engine": self.engine, "ok": self.ok, "rule": self.rule, "reasons": list(self.reasons)}


@dataclass(frozen=True)
class Side:
    """What the rules look at in one of the two models.

    vocab_size: of config.json, padding included. texts: probe name -> ids as AutoTokenizer gives them, special tokens
    included. chat: ids of a rendered conversation, None without a template. trouble: why AutoTokenizer gave none.
    """

    tokenizer: Tokenizer
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    vocab_size: int
    texts: Mapping[str, Sequence[int]]
    chat: Sequence[int] | None
    trouble: str = ""

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokenizer's vocabulary."""
        return self.tokenizer.vocabulary

    def role(self, role: str) -> list[int]:
        """Return the ids that have a role to the model: its config's, or else its tokenizer's."""
        return config_ids(self.config, role) or [i for name, i in self.vocabulary.roles.items() if name == role]

    def stops(self) -> set[int]:
        """Return the ids that end a generated text."""
        return set(token_ids(self.generation, "eos_token_id") or self.role("eos"))


def config_ids(config: Mapping[str, Any], role: str) -> list[int]:
    """Return the ids of a role in config.json, at its top or where the text model is described."""
    key = f"{role}_token_id"
    return token_ids(config, key) or token_ids(text_config(config)[1], key)


def read_side(folder: Path, *, trust_remote_code: bool = False) -> Side:
    """Read what the rules look at; weights are not needed.

    Raises InputError missing-config, bad-config, missing-tokenizer, bad-tokenizer, unsupported-tokenizer, duplicate-ids.
    """
    folder = folder.parent if folder.is_file() else folder  # a tokenizer.json was named
    config = read_json(folder / "config.json", "config")
    path = folder / "generation_config.json"
    generation = read_json(path, "config") if path.is_file() else {}
    tokenizer = read_tokenizer(folder, trust_remote_code=trust_remote_code)
    texts: dict[str, list[int]] = {}
    chat, trouble = None, ""
    try:
        loaded = auto_tokenizer(folder, trust_remote_code=trust_remote_code)
        texts = {name: loaded(text)["input_ids"] for name, text in TEXTS.items()}
        if loaded.chat_template:
            rendered = loaded.apply_chat_template(list(CHAT), tokenize=False, add_generation_prompt=True)
            chat = loaded(rendered, add_special_tokens=False)["input_ids"]
    except Exception as error:  # a tokenizer class or a template may fail in any way, and that is the finding
        trouble = f"{type(error).__name__}: {error}"
    return Side(tokenizer, config, generation, text_config(config, folder)[1]["vocab_size"], texts, chat, trouble)


def draft_verdicts(draft: str | Path, target: str | Path, *, trust_remote_code: bool = False) -> list[Verdict]:
    """Say for each engine whether it would take a model folder as the draft of another; see `judge` for the rules.

    target needs its tokenizer and config alone. Raises InputError as `read_side` does.
    """
    return judge(*(read_side(Path(folder), trust_remote_code=trust_remote_code) for folder in (draft, target)))


def judge(draft: Side, target: Side) -> list[Verdict]:
    """Apply every rule. The first four are what the engines test before they start, which is less than what they need."""
    return [
        Verdict("vLLM", "equal vocab_size in both configs; what the ids mean is not tested", _vllm(draft, target)),
        Verdict(
            "llama.cpp",
            f"same tokenizer type, add_bos, add_eos, bos and eos; sizes at most {_LLAMA_DIFFERENCE} apart; same text of "
            f"every id from {_LLAMA_FIRST} on",
            _llama(draft, target),
        ),
        Verdict(
            "transformers",
            "equal vocab_size means the same tokenizer, untested; otherwise both tokenizers have to be given",
            _transformers(draft, target),
        ),
        Verdict("mlx-lm", "equal vocab_size of both tokenizers, added tokens not counted", _mlx(draft, target)),
        Verdict(
            "tokswap",
            "the same vocabulary id for id, sizes, bos, eos and pad, and the same ids of texts and of a chat",
            _strict(draft, target),
        ),
    ]


def _vllm(draft: Side, target: Side) -> tuple[str, ...]:
    return tuple(_sizes(draft, target))


def _llama(draft: Side, target: Side) -> tuple[str, ...]:
    reasons = []
    types = [_LLAMA_TYPES[side.tokenizer.family] for side in (draft, target)]
    if types[0] != types[1]:
        reasons.append(f"the tokenizer type is {types[0]}, the target's {types[1]}")
    reasons += _added(draft, target)
    for role, used in (("bos", target.tokenizer.adds_bos), ("eos", target.tokenizer.adds_eos)):
        ids = [side.vocabulary.roles.get(role, next(iter(side.role(role)), None)) for side in (draft, target)]
        if ids[0] != ids[1]:
            unused = "" if used else "; releases that compare it only where it is added would not mind"
            reasons.append(f"{role} is {_id(ids[0])}, the target's {_id(ids[1])}{unused}")
    if abs(draft.vocab_size - target.vocab_size) > _LLAMA_DIFFERENCE:
        reasons.append(f"{draft.vocab_size:,} ids, the target has {target.vocab_size:,}: more than 128 apart")
    # Its converter names an id that the tokenizer does not define [PAD<id>], so that two of them are equal.
    count = min(draft.vocab_size, target.vocab_size)
    texts = [list(side.vocabulary.text[:count]) for side in (draft, target)]
    differ = [n for n, (a, b) in enumerate(zip_longest(*texts, fillvalue="")) if a != b and n >= _LLAMA_FIRST]
    return (*reasons, *_tokens(differ, draft, target))


def _transformers(draft: Side, target: Side) -> tuple[str, ...]:
    return tuple(
        f"{reason}; only universal assisted generation takes it, with `tokenizer` and `assistant_tokenizer`"
        for reason in _sizes(draft, target)
    )


def _mlx(draft: Side, target: Side) -> tuple[str, ...]:
    sizes = [len(side.tokenizer.spec["model"]["vocab"]) for side in (draft, target)]
    if sizes[0] == sizes[1]:
        return ()
    return (f"the tokenizer has {sizes[0]:,} tokens besides added ones, the target's {sizes[1]:,}",)


def _strict(draft: Side, target: Side) -> tuple[str, ...]:
    reasons = _sizes(draft, target)
    if len(draft.vocabulary) != len(target.vocabulary):
        reasons.append(f"the tokenizer has {len(draft.vocabulary):,} ids, the target's {len(target.vocabulary):,}")
    both = zip_longest(*(zip(s.vocabulary.text, s.vocabulary.kind, strict=True) for s in (draft, target)))
    reasons += _tokens([n for n, (a, b) in enumerate(both) if a != b], draft, target)
    for role in ("bos", "eos", "pad"):
        ids = [side.role(role) for side in (draft, target)]
        if ids[0] != ids[1]:
            reasons.append(f"{role} is {_ids(ids[0])}, the target's {_ids(ids[1])}")
    if draft.stops() != target.stops():
        reasons.append(
            f"generation stops at {_ids(sorted(draft.stops()))}, the target's at {_ids(sorted(target.stops()))}"
        )
    reasons += _added(draft, target)
    for side, name in ((draft, "the draft"), (target, "the target")):
        if side.trouble:
            reasons.append(f"transformers cannot use the tokenizer of {name}: {side.trouble}")
    if draft.trouble or target.trouble:
        return tuple(reasons)
    cut = [name for name in TEXTS if draft.texts[name] != target.texts[name]]
    if cut:
        reasons.append(f"these probe texts get other ids: {_listed(cut)}")
    if (draft.chat is None) != (target.chat is None):
        has = (
            "the draft has a chat template, the target has"
            if target.chat is None
            else "the target has a chat template, the draft has"
        )
        reasons.append(f"{has} none")
    elif draft.chat != target.chat:
        assert draft.chat is not None
        assert target.chat is not None
        at = next(n for n, (a, b) in enumerate(zip_longest(draft.chat, target.chat)) if a != b)
        reasons.append(f"a rendered conversation gets other ids from its token {at} on")
    return tuple(reasons)


def _sizes(draft: Side, target: Side) -> list[str]:
    if draft.vocab_size == target.vocab_size:
        return []
    return [f"vocab_size is {draft.vocab_size:,}, the target's {target.vocab_size:,}"]


def _added(draft: Side, target: Side) -> list[str]:
    reasons = []
    for role in ("bos", "eos"):
        adds = [getattr(side.tokenizer, f"adds_{role}") for side in (draft, target)]
        if adds[0] != adds[1]:
            reasons.append(
                f"the tokenizer {'adds' if adds[0] else 'does not add'} {role}, the target's {'does' if adds[1] else 'does not'}"
            )
    return reasons


def _tokens(ids: Sequence[int], draft: Side, target: Side) -> list[str]:
    """Name the ids that are not the same token to both."""
    if not ids:
        return []

    def text(side: Side, token: int) -> str:
        return repr(side.vocabulary.text[token]) if token < len(side.vocabulary) else "nothing"

    some = [f"{n} ({text(draft, n)}, {text(target, n)})" for n in ids]
    return [f"{len(ids):,} ids mean something else than to the target: {_listed(some)}"]


def _id(token: int | None) -> str:
    return "not set" if token is None else str(token)


def _ids(tokens: Sequence[int]) -> str:
    return _listed(list(map(str, tokens))) if tokens else "not set"


def _listed(items: Sequence[str]) -> str:
    more = f", ... and {len(items) - _SHOWN:,} more" if len(items) > _SHOWN else ""
    return ", ".join(items[:_SHOWN]) + more
