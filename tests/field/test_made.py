"""The field test on tokenizers that are made here, and damage that its checks must see."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import makers
import pytest
from click.testing import CliRunner

from field import checks, texts
from field.journey import Ground, extended, step, transplanted, travel, trimmed
from tokswap.cli import main

SEEN = [text for text in texts.ODD if text.strip()]


def in_this_process(arguments: list[str]) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments, prog_name="tokswap")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("family", makers.FAMILIES)
def test_a_made_tokenizer(family: str, tmp_path: Path, base: Path, tokenizer_of: Callable[..., Path]) -> None:
    folder = makers.copy_model(tokenizer_of(family, chat_template=makers.CHAT_TEMPLATE), tmp_path / "tokenizer")
    edit_tokenizer(folder, add_a_tool_token)
    outcomes = list(travel(folder, Ground(tmp_path, base=base, run=in_this_process)))
    assert [(outcome.step, outcome.kind, outcome.details) for outcome in outcomes] == [
        (name, "works", []) for name in ("inspect", "onto it", "away from it", "trim", "extend")
    ]


@pytest.fixture(scope="module")
def whole(model_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with byte tokens and a chat template. Compared with itself it is a result that is right."""
    made = model_of("llama", family="sentencepiece", chat_template=makers.CHAT_TEMPLATE, rows=620)
    folder = makers.copy_model(made, tmp_path_factory.mktemp("whole") / "model")
    edit_tokenizer(folder, add_a_tool_token)
    return folder


def edit_tokenizer(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    spec = makers.read_json(folder / "tokenizer.json")
    change(spec)
    makers.write_json(folder / "tokenizer.json", spec)


def add_a_tool_token(spec: dict[str, Any]) -> None:
    """Add a token that is not special, as Qwen's `<tool_call>`."""
    size = 1 + max(makers._ids(spec).values())
    spec["added_tokens"].append(makers._added(size, "<tool_call>", special=False))


def swap_tokens(spec: dict[str, Any]) -> None:
    vocab = spec["model"]["vocab"]
    one, two = sorted(vocab, key=vocab.__getitem__)[-2:]
    vocab[one], vocab[two] = vocab[two], vocab[one]


def swap_letters(spec: dict[str, Any]) -> None:
    vocab = spec["model"]["vocab"]
    vocab["e"], vocab["a"] = vocab["a"], vocab["e"]


def forget_added(spec: dict[str, Any]) -> None:
    spec["model"]["vocab"]["gone"] = spec["added_tokens"].pop()["id"]


def edit_rows(folder: Path, change: Callable[[Any, dict[str, int]], object]) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    ids = makers.read_json(folder / "tokenizer.json")["model"]["vocab"]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        change(tensors[name], ids)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def copy_a_row(name: str, other: str) -> Callable[[Path], None]:
    def change(matrix: Any, ids: dict[str, int]) -> None:
        matrix[ids[name]] = matrix[ids[other]]

    return lambda folder: edit_rows(folder, change)


def rename_the_user(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text("utf-8").replace("<|im_start|>", "<start>"), encoding="utf-8")


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "two ids change places": (lambda out: edit_tokenizer(out, swap_tokens), "ids have other tokens", "other rows"),
    "a merge is lost": (
        lambda out: edit_tokenizer(out, lambda spec: spec["model"]["merges"].pop(0)),
        "texts have other ids",
        "texts have other tokens",
    ),
    "an added token is lost": (
        lambda out: edit_tokenizer(out, forget_added),
        "ids have other tokens",
        "added tokens are gone",
    ),
    "a role is lost": (
        lambda out: makers.edit_json(out / "tokenizer_config.json", pad_token=...),
        "pad_token is None",
        "pad_token is None",
    ),
    "eos is another token": (
        lambda out: makers.edit_json(out / "generation_config.json", eos_token_id=9),
        "goes on after",
        "goes on after",
    ),
    "a config names an id past the rows": (
        lambda out: makers.edit_json(out / "config.json", pad_token_id=620),
        "cannot be used",
        "cannot be used",
    ),
    "bos is before every text": (
        lambda out: edit_tokenizer(
            out, lambda spec: spec.update(post_processor=makers._template(["<bos>", "$A"], {"<bos>": 2}))
        ),
        "with special tokens",
        "with special tokens",
    ),
    "the template is another": (rename_the_user, "a chat by", "a chat by"),
    "a row is another's": (copy_a_row("e", "a"), "no copied row", "kept tokens have other rows"),
    "a byte token has a piece's row": (copy_a_row("<0x65>", "e"), "byte tokens", "kept tokens have other rows"),
}
"""What is done to a result -> what must be said of a transplant, and of a trim."""


@pytest.mark.parametrize("damage", ["none", *DAMAGE])
def test_damage_is_seen(damage: str, whole: Path, tmp_path: Path) -> None:
    out = makers.copy_model(whole, tmp_path / "out" / "result")
    change, *wanted = DAMAGE.get(damage, (lambda out: None, "", ""))
    change(out)
    ground = Ground(tmp_path, base=whole, run=lambda arguments: (0, ""))
    judges = (lambda _: transplanted(out, whole, whole, bos=False), lambda _: trimmed(out, whole, SEEN))
    for judge, phrase in zip(judges, wanted, strict=True):
        outcome = step("result", ground, ["trim"], judge)
        said = " | ".join(outcome.details)
        assert (phrase in said and outcome.kind == "wrong") if phrase else said == "", said


@pytest.fixture(scope="module")
def longer(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model with three new words."""
    folder = tmp_path_factory.mktemp("longer")
    (folder / "words.txt").write_text("\n".join(texts.NEW_WORDS), encoding="utf-8")
    command = ["extend", "--model", str(whole), "--tokens", str(folder / "words.txt"), "--init", "mean"]
    assert in_this_process([*command, "--out", str(folder / "out")])[0] == 0
    return folder / "out"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (None, ""),
        (lambda out: edit_tokenizer(out, swap_letters), "old tokens have other ids"),
        (lambda out: edit_tokenizer(out, lambda spec: spec["model"]["merges"].pop()), "tondelimeration is ["),
        (lambda out: edit_tokenizer(out, lambda spec: spec["model"]["merges"].pop(0)), "texts have other ids"),
        (copy_a_row("e", "a"), "old tokens have other rows"),
        (rename_the_user, "a chat by"),
    ],
)
def test_damage_of_an_extension_is_seen(
    change: Callable[[Path], object] | None, said: str, whole: Path, longer: Path, tmp_path: Path
) -> None:
    out = makers.copy_model(longer, tmp_path / "out" / "result")
    if change is not None:
        change(out)
    found = " | ".join(extended(out, whole))
    assert said in found if said else found == "", found


@pytest.mark.parametrize(
    ("printed", "left", "kind"),
    [
        ("error: no tokenizer here  [missing-tokenizer]\n  folder: x\n", False, "refused"),
        ('{"error": {"code": "missing-tokenizer"}}', False, "refused"),
        ("error: no tokenizer here  [missing-tokenizer]\n", True, "wrong"),
        ("error: a text is tokenized otherwise  [not-exact]\n", False, "wrong"),
        ("Traceback (most recent call last):\nKeyError: 'x'\n", False, "wrong"),
        ("Killed\n", False, "wrong"),
    ],
)
def test_a_refusal_is_one_with_a_code(printed: str, left: bool, kind: str, base: Path, tmp_path: Path) -> None:
    if left:
        (tmp_path / "out" / "trim").mkdir(parents=True)
    ground = Ground(tmp_path, base=base, run=lambda arguments: (1, printed))
    assert step("trim", ground, ["trim"], lambda _: []).kind == kind


def test_only_the_runner_imports_tokswap() -> None:
    importing = {
        path.name: node.module
        for path in Path(__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "tokswap" in ast.unparse(node)
    }
    assert importing == {"test_made.py": "tokswap.cli"}


def test_begins_with_bos(tokenizer_of: Callable[..., Path]) -> None:
    begins = [tokenizer_of("sentencepiece", adds_bos=adds) for adds in (True, False)]
    assert [checks.begins_with_bos(checks.load_tokenizer(folder)) for folder in begins] == [True, False]
