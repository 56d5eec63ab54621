"""Trans-Tokenization: a mixture of the source tokens that translate a token in parallel text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from tokswap.errors import InputError
from tokswap.init.base import BaseModel, Initializer, Pieces, Problem, Rows
from tokswap.init.made_rows import MadeRows
from tokswap.init.methods._translations import translations
from tokswap.init.resources.protocol import Resources
from tokswap.options.declare import option


@dataclass(frozen=True)
class TransTokenizer(Initializer):
    """A new token is the mean of the source tokens that translate it in parallel text, and of its pieces.

    It is for a target tokenizer of a language that the source model hardly knows. Give two files with a sentence a
    line: `source_text` in the model's language, and `target_text` with the translation of each line. A word aligner
    (IBM model 1 with a diagonal prior, in both directions) counts how often each source token translates the new one.
    The counts are the weights. Translations below `least` of a token's count are left out as noise. The pieces weigh
    as much as `pieces` more links, because a few links say little. A new token without translations gets the mean of
    its pieces. The paper's way is pieces=0.
    """

    source_text: str = option("", "sentences in the source model's language, one a line (required)")
    target_text: str = option("", "their translations, line by line, for the target tokenizer (required)")
    pieces: float = option(4.0, "weight of the pieces' mean, in links", least=0.0)
    least: float = option(0.05, "least share of a translation in a token's links", least=0.0, most=1.0)
    rounds: int = option(5, "rounds of expectation maximisation of the aligner", least=1)

    summary: ClassVar[str] = "mean of the source tokens that translate it in parallel text"
    reference: ClassVar[str] = "arXiv 2408.04303"
    needs: ClassVar[str] = "parallel text"

    def check(self, base: BaseModel, resources: Resources) -> None:
        """Check that both texts exist and have as many lines.

        Raises:
            UsageError: missing-setting.
            InputError: unknown-file, bad-text, unequal-lines.
        """
        resources.check_file(self.source_text, "source_text", "FILE.txt")
        resources.check_file(self.target_text, "target_text", "FILE.txt")
        self._lines(resources)

    def __call__(self, problem: Problem) -> Rows:
        """Mix the translations; the diagnostic `links` is how often a token is translated.

        Raises:
            InputError: bad-text, unequal-lines.
        """
        from tokswap.init.methods._combine import combine_pieces

        key, cache = ("trans-tokenizer", self), problem.context.cache
        if key not in cache:
            cache[key] = self._translate(problem)
        tokens, weights = cache[key]
        links = np.bincount(
            np.repeat(np.arange(len(problem.missing)), np.diff(tokens.start)), weights, len(problem.missing)
        )
        lost = links == 0
        own = np.where(lost, 1.0, self.pieces / np.maximum(links + self.pieces, np.finfo(float).tiny))

        def make(part: slice) -> np.ndarray:
            share = own[part, None]
            linked = combine_pieces(problem, weights, tokens, part=part)
            return np.asarray(share * combine_pieces(problem, part=part) + (1 - share) * linked, np.float32)

        notes: tuple[str, ...] = ()
        if lost.any():
            count = f"{lost.sum():,} of {len(lost):,} new tokens"
            notes = (f"trans-tokenizer: {count} have no translation in this text; each gets the mean of its pieces",)
        rows = MadeRows(len(own), problem.source.width, make)
        return Rows(rows, {"links": links.astype(np.float32)}, notes=notes)

    def _translate(self, problem: Problem) -> tuple[Pieces, np.ndarray]:
        """Return the source tokens that translate each missing token, and their counts, float64 [P]."""
        assert problem.tokenizers is not None
        assert problem.context.resources is not None
        ours, theirs = self._lines(problem.context.resources)
        target = [problem.tokenizers.target.encode(line) for line in theirs]
        source = [problem.tokenizers.source.encode(line) for line in ours]
        links = translations(target, source, self.rounds)
        total = np.bincount(links.target, links.count, len(problem.target))
        place = np.full(len(problem.target), -1, np.int64)
        place[problem.missing] = np.arange(len(problem.missing))
        kept = (links.count > 0) & (links.count >= self.least * total[links.target]) & (place[links.target] >= 0)
        of = place[links.target[kept]]
        order = np.argsort(of, kind="stable")
        ends = np.cumsum(np.bincount(of, minlength=len(problem.missing)))
        lists = np.split(links.source[kept][order], ends[:-1]) if len(ends) else []
        return Pieces.from_lists([ids.tolist() for ids in lists]), links.count[kept][order]

    def _lines(self, resources: Resources) -> tuple[list[str], list[str]]:
        """Return the lines of both texts."""
        ours, theirs = (
            resources.read_text(path).removesuffix("\n").split("\n") for path in (self.source_text, self.target_text)
        )
        if len(ours) != len(theirs):
            raise InputError(
                "unequal-lines",
                f"parallel texts need as many lines: one has {len(ours):,}, the other {len(theirs):,}",
                "each line of `target_text` must translate the same line of `source_text`",
                source_text=self.source_text,
                target_text=self.target_text,
            )
        return ours, theirs

    def flops(self, missing: int, anchors: int, width: int) -> float:
        """Count about eight rows per token."""
        return 8.0 * missing * width
