"""The result of a run as an object to go on with: what reports of every operation share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokswap.report.table import html_table


class Result(ABC):
    """Base of the reports: the result in a folder, or a model and its tokenizer in memory.

    Attributes:
        loaded: The changed model and tokenizer, where the run changed loaded objects.
        folder: Whole path of the result, None where nothing was written.
    """

    loaded: tuple[Any, Any] | None
    folder: Path | None

    def __post_init__(self) -> None:
        """Note the whole path of the result: a program may go to another folder before it loads it."""
        object.__setattr__(self, "folder", self.path.absolute() if self.path else None)

    @property
    @abstractmethod
    def operation(self) -> str:
        """What the run was: transplant, trim, extend, draft or heal."""

    @property
    @abstractmethod
    def path(self) -> Path | None:
        """Folder of the result, None where nothing was written."""

    @abstractmethod
    def facts(self) -> Sequence[tuple[str, str]]:
        """Return the main figures by name."""

    def load(self) -> tuple[Any, Any]:
        """Return the result as a transformers model and its tokenizer; an adapter with the model that it belongs to.

        A model that was changed in memory is returned as it is; else the folder is loaded.
        """
        if self.loaded is not None:
            return self.loaded
        from tokswap.checkpoint.loaded import load_folder

        assert self.folder is not None
        return load_folder(self.folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the result with its model card to the Hugging Face Hub, without the paths of this machine.

        Args:
            repo_id: OWNER/NAME; created where it does not exist.
            private: Whether a new repository is private.
            token: Access token; by default the one that `hf auth login` has saved.

        Returns:
            The address of the repository.

        Raises:
            OutputError: not-written, push-failed.
        """
        from tokswap.report.published import push_result

        return push_result(self.folder, repo_id, private=private, token=token)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.load())

    def __repr__(self) -> str:
        rows = self.facts()
        width = max(len(name) for name, _ in rows)
        return "\n".join([f"<{self.operation} report>", *(f"  {name:{width}}  {value}" for name, value in rows)])

    def _repr_html_(self) -> str:
        return html_table(f"tokswap {self.operation}", self.facts())
