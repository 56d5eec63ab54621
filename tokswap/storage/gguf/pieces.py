"""The tokens of a GGUF file and what llama.cpp takes each of them for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokswap.storage.gguf.strips import stripping_tokens

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""The values of `tokenizer.ggml.token_type`."""

_ENDS = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s> <|eom_id|> "
    "<EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response> "
)
"""Tokens with which a generated text ends in llama.cpp, whatever the file says."""
_CONTROL = (
    _ENDS
    + "<｜end▁of▁sentence｜> [e~[ <|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> "
    "<|prefix|> <|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|> "
    "<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|> <|fim_pad|> "
    "<fim-pad> <fim_pad> <PAD> [PAD] <|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame> <|file_sep|>"
)
"""Tokens that llama.cpp takes for control tokens whatever the file says."""
_USER_DEFINED = "<|channel|> <|message|> <|start|> <|constrain|>"


def ends_by_text(text: str) -> bool:
    """Whether llama.cpp knows by its text that a token ends a generated text."""
    return text in _ENDS.split()


@dataclass(frozen=True)
class Pieces:
    """The tokens by id.

    Attributes:
        texts: The tokens.
        kinds: Their types, with llama.cpp's corrections.
        scores: Their scores; empty where the file has none.
    """

    texts: list[str]
    kinds: list[int]
    scores: list[float]

    @property
    def ids(self) -> dict[str, int]:
        """Token -> id."""
        return {text: number for number, text in enumerate(self.texts)}

    @property
    def special(self) -> dict[int, str]:
        """What llama.cpp matches in a text before it splits it: id -> text."""
        return {
            number: text
            for number, (text, kind) in enumerate(zip(self.texts, self.kinds, strict=True))
            if kind in (UNKNOWN, CONTROL, USER_DEFINED)
        }

    def added(self, name: str, pre: str | None) -> list[dict[str, Any]]:
        """Return the `added_tokens` of a tokenizer.json: what is matched in a text before the model sees it.

        Args:
            name: `general.name` of the file.
            pre: Name of its pre-tokenizer.
        """
        special = self.special
        before, after = stripping_tokens(name, pre, special.values())
        return [
            {
                "id": number,
                "content": text,
                "single_word": False,
                "lstrip": text in before,
                "rstrip": text in after,
                "normalized": False,
                "special": self.kinds[number] != USER_DEFINED,
            }
            for number, text in special.items()
        ]


def read_pieces(metadata: Mapping[str, Any]) -> Pieces:
    """Return the tokens of a file.

    Raises:
        ValueError: for arrays that do not fit together, and a token that occurs twice.
    """
    texts = [text or f"[EMPTY_{number}]" for number, text in enumerate(metadata["tokenizer.ggml.tokens"])]
    size = len(texts)
    if len(set(texts)) < size:
        raise ValueError("a token occurs twice in its vocabulary")
    kinds = list(map(int, metadata.get("tokenizer.ggml.token_type", [NORMAL] * size)))
    scores = list(map(float, metadata.get("tokenizer.ggml.scores", [])))
    if len(kinds) < size or len(scores) not in (0, size):
        raise ValueError(f"{size:,} tokens, {len(kinds):,} types and {len(scores):,} scores do not fit together")
    return Pieces(texts, _corrected(texts, kinds[:size]), scores)


def _corrected(texts: list[str], kinds: list[int]) -> list[int]:
    """Correct the types of tokens that llama.cpp knows by their texts."""
    known = set(texts)
    control, user_defined = set(_CONTROL.split()), set(_USER_DEFINED.split())
    if "</s>" in known and known & {"<|tool_response>", "<|plamo:eos|>"}:
        control.remove("</s>")
        kinds = [NORMAL if text == "</s>" else kind for text, kind in zip(texts, kinds, strict=True)]
    if {"<|return|>", "<|call|>"} <= known or ("<|flush|>" in known and known & {"<|call|>", "<|calls|>"}):
        user_defined.add("<|end|>")
    return [
        USER_DEFINED if text in user_defined else CONTROL if text in control else kind
        for text, kind in zip(texts, kinds, strict=True)
    ]
