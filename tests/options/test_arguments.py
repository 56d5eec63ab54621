"""Every public function refuses arguments of another type than it is annotated with, before it opens anything."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import makers
import pytest

import tokswap
from tokswap import hypernet
from tokswap.errors import UsageError
from tokswap.options.kinds import called, is_of, typed

HYPERNET = ("import_hypernet", "load_hypernet", "open_surface")
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: one for name in tokswap.__all__ if inspect.isfunction(one := getattr(tokswap, name))},
    **{name: getattr(hypernet, name) for name in HYPERNET},
}
VALUES = (5, 2.5, True, None, "x", b"x", Path("x"), [5], [None], [["x"]], {"a": "b"}, object())
ANYTHING = ("Any", "Like", "object")
"""What an annotation has that a function does not check by itself, but opens."""


def wrong(function: Callable[..., Any]) -> Iterator[tuple[str, object]]:
    for name, parameter in inspect.signature(function).parameters.items():
        annotation = str(parameter.annotation)
        if any(word in annotation for word in ANYTHING):
            continue
        one_or_more = (
            annotation.startswith("Sequence[") and parameter.default is parameter.empty
        )  # a name alone will do
        for value in VALUES:
            if not is_of(annotation, value) and not (one_or_more and is_of(annotation, [value])):
                yield name, value


@pytest.mark.parametrize("name", FUNCTIONS)
def test_other_types_are_refused_in_the_beginning(name: str) -> None:
    parameters = inspect.signature(FUNCTIONS[name]).parameters.values()
    needed = {
        one.name: {} if "Mapping" in str(one.annotation) else "x" for one in parameters if one.default is one.empty
    }
    for argument, value in wrong(FUNCTIONS[name]):
        with pytest.raises(UsageError) as refused:
            FUNCTIONS[name](**{**needed, argument: value})
        assert refused.value.code.startswith(("bad-", "unknown-")), (argument, value)
        assert " takes " in refused.value.message or " must be " in refused.value.message, (argument, value)


def test_texts_are_no_switches() -> None:
    """A text for `trust_remote_code` counted as yes where a function has no option type."""
    with pytest.raises(UsageError, match="`trust_remote_code` takes True or False, not 'false'"):
        tokswap.verify_checkpoint("nowhere", trust_remote_code="false")  # type: ignore[arg-type]


def test_objects_that_are_no_models_and_tokenizers(tmp_path: Path) -> None:
    model = makers.make_model("llama", tmp_path / "model", vocab_size=400)
    for values, code in (((5, None), "bad-model"), ((None, 5), "bad-model")):
        with pytest.raises(UsageError) as refused:
            tokswap.bits_per_byte(*values, "text")
        assert refused.value.code == code
    with pytest.raises(UsageError, match="this is not a tokenizer: int"):
        tokswap.verify_checkpoint(model, tokenizer=5)
    with pytest.raises(UsageError, match="two members at least, not 0"):
        tokswap.plan_ensemble([], model, tmp_path / "ensemble")
    with pytest.raises(UsageError, match="the same token at every id"):
        tokswap.plan_transplant(model, makers.make_tokenizer("unigram", tmp_path / "other"), keep_rows=True)


@pytest.mark.parametrize(
    ("annotation", "value", "fits"),
    [
        ("str | Sequence[float] | None", (1, 2.5), True),
        ("str | Sequence[float] | None", ("1",), False),
        ("Mapping[str, Any]", {1: 2}, True),
        ("Callable[[int], object] | None", 5, False),
        ("Callable[[int], object] | None", print, True),
        ("Sequence[str | Path]", (name for name in "ab"), True),
        ("int | None", True, False),
        ("ModelLike | None", 5, True),
    ],
)
def test_annotations(annotation: str, value: object, fits: bool) -> None:
    assert is_of(annotation, value) is fits


def test_what_values_are_called() -> None:
    assert called("str | Path | None") == "a name or a path"
    assert called("Sequence[str | Path]") == "a list of names or paths"
    assert called("str | Sequence[float] | None") == "text or a list of numbers"
    assert called("Callable[[int], object] | None") == "a function"

    @typed
    def some(names: list[str]) -> None:
        """Take names."""

    with pytest.raises(UsageError) as refused:
        some("x")  # type: ignore[arg-type]
    assert refused.value.hint == "write names=['x']"
