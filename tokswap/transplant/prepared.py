"""A transplant between its stages: all but the layout and the estimate is known."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from tokswap.checkpoint.configs import Configs
from tokswap.checkpoint.edit import MatrixEdit
from tokswap.checkpoint.result_files import ResultFiles
from tokswap.tokenizer.alignment import Alignment
from tokswap.transplant.inputs import Inputs
from tokswap.transplant.options import TransplantOptions


@dataclass(frozen=True)
class Prepared:
    """A transplant up to its configs.

    Attributes:
        inputs: What it reads.
        options: What the user asked for.
        alignment: Where every row of the result comes from.
        matrices: What becomes of each vocabulary matrix.
        result: Configs and files of the result.
        bos: Id that the tokenizer is made to put first, None where it stays as it is.
        notes: What the user should know.
        copied_head: Whether every row of lm_head that is not copied is neutral.
    """

    inputs: Inputs
    options: TransplantOptions
    alignment: Alignment
    matrices: tuple[MatrixEdit, ...]
    result: ResultFiles
    bos: int | None
    notes: tuple[str, ...]
    copied_head: bool = False

    @property
    def configs(self) -> Configs:
        """The configs of the result."""
        return self.result.configs

    def with_configs(self, configs: Configs) -> Prepared:
        """Return this with other configs."""
        return dataclasses.replace(self, result=dataclasses.replace(self.result, configs=configs))
