from __future__ import annotations

import os

# Before any test module imports the libraries that read these.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import makers

# The same examples in every run and on every machine, however slow it is.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors here, except for what other libraries say about themselves when they are imported."""
    for line in (
        # torch imports its own deprecated parts
        "ignore::DeprecationWarning:torch.*",
        "ignore::FutureWarning:torch.*",
        # Types made by SWIG (sentencepiece, protobuf) name no module; CPython warns when they are first imported.
        "ignore:builtin type (SwigPyPacked|SwigPyObject|swigvarlink) has no __module__ attribute:DeprecationWarning",
    ):
        config.addinivalue_line("filterwarnings", line)


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's own settings and files out of the tests, and sums in one order."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in its background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKSWAP_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("TOKSWAP_CACHE", str(tmp_path_factory.mktemp("cache")))
        import torch

        torch.set_num_threads(1)
        yield


@pytest.fixture(scope="session")
def tokenizer_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a folder with a tokenizer of a family, made once for each set of options. Read-only."""
    return _made_once(tmp_path_factory, makers.make_tokenizer)


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a folder with a model and its tokenizer, made once for each set of options. Read-only: copy it to edit."""
    return _made_once(tmp_path_factory, makers.make_model)


def _made_once(factory: pytest.TempPathFactory, make: Callable[..., Path]) -> Callable[..., Path]:
    made: dict[str, Path] = {}

    def find(name: str, **options: Any) -> Path:
        key = repr((name, sorted(options.items())))
        if key not in made:
            made[key] = make(name, factory.mktemp(name) / "made", **options)
        return made[key]

    return find
