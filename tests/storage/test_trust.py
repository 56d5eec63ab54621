"""Files from strangers: tokswap loads no pickle, runs no code, and follows no link out of a folder."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import makers
import numpy as np
import pytest
from click.testing import CliRunner
from soak.commands import TRAINING
from soak.good_files import make_adapter

import tokswap
from tokswap.cli import main
from tokswap.errors import InputError
from tokswap.init.resources.vectors import read_vectors
from tokswap.storage.trust import check_code

PACKAGE = Path(tokswap.__file__).parent
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml", "subprocess"}


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


def calls(tree: ast.AST) -> set[str]:
    """The dotted names of what a file calls, and the names of its keyword arguments that are true."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found.add(ast.unparse(node.func))
            found |= {str(k.arg) for k in node.keywords if isinstance(k.value, ast.Constant) and k.value.value is True}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_of_the_package_can_load_a_pickle_or_run_a_text(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    imported = {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    imported |= {str(node.module).split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & FORBIDDEN
    assert not calls(tree) & {"torch.load", "eval", "exec", "compile", "os.system", "allow_pickle", "trust_remote_code"}


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.write_text, (self.marker, "the code has run")


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that must not be there at the end."""
    path = tmp_path / "marker"
    pickle.loads(pickle.dumps(Bomb(path)))  # the trap works
    assert path.exists()
    path.unlink()
    return path


@pytest.fixture
def model(model_of: Callable[..., Path], tmp_path: Path) -> Path:
    return makers.copy_model(model_of("qwen2"), tmp_path / "model")


@pytest.fixture
def other(model_of: Callable[..., Path]) -> Path:
    return model_of("llama")


def every_command(model: Path, other: Path, tmp_path: Path) -> list[tuple[int, str]]:
    """Use a model in all commands."""
    text = makers.TEXTS / "english.txt"
    more = ("--init", "subword", "-q", "--out")
    return [
        run("inspect", model),
        run("compare", model, other),
        run("transplant", "--model", model, "--tokenizer", other, *more, tmp_path / "out1"),
        run("transplant", "--model", other, "--tokenizer", model, *more, tmp_path / "out2"),
        run("transplant", "--model", other, "--tokenizer", model, "--init", "omp", "-q", "--out", tmp_path / "out3"),
        run("trim", "--model", model, "--corpus", text, "-q", "--out", tmp_path / "out4"),
        run("eval", model, "--text", text, "--tokens", 2, "--prompt", "The", "-q"),
        run("verify", model),
        run("hypernet", "train", "--model", model, "--text", text, "--out", tmp_path / "out5", "-q", *TRAINING),
    ]


def test_pickled_weights_are_refused_and_not_loaded(model: Path, other: Path, marker: Path, tmp_path: Path) -> None:
    (model / "model.safetensors").unlink()
    for name in ("pytorch_model.bin", "model.pt", "training_args.bin", "optimizer.pt"):
        (model / name).write_bytes(pickle.dumps(Bomb(marker)))
    ends = every_command(model, other, tmp_path)
    assert sum("[pickled-weights]" in words for _, words in ends) >= 6, [words.splitlines()[:1] for _, words in ends]
    assert not marker.exists()


def test_pickles_beside_the_weights_are_left_alone(model: Path, other: Path, marker: Path, tmp_path: Path) -> None:
    for name in ("pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.pkl"):
        (model / name).write_bytes(pickle.dumps(Bomb(marker)))
    assert (
        run("transplant", "--model", model, "--tokenizer", other, "--init", "subword", "-q", "--out", tmp_path / "out")[
            0
        ]
        == 0
    )
    assert not [path for path in (tmp_path / "out").iterdir() if path.suffix in (".bin", ".pt", ".pkl")]
    every_command(model, other, tmp_path)
    assert not marker.exists()


def test_arrays_of_objects_are_not_loaded(marker: Path, tmp_path: Path) -> None:
    words = np.array([Bomb(marker), "a"], object)
    np.savez(tmp_path / "vectors.npz", words=words, vectors=np.zeros((2, 3)))
    with pytest.raises(InputError) as caught:
        read_vectors(str(tmp_path / "vectors.npz"), 10)
    assert caught.value.code == "bad-vectors"
    assert not marker.exists()


def test_a_training_goes_on_without_loading_a_pickle(model: Path, marker: Path, tmp_path: Path) -> None:
    """The optimizer's state is torch's own format, which is read by a reader that builds tensors and nothing else."""
    text, out = makers.TEXTS / "english.txt", tmp_path / "out"
    command = ("hypernet", "train", "--model", model, "--text", text, "--out", out, "-q", *TRAINING)
    assert run(*command)[0] == 0
    step = max((out / "training").glob("step-*"))
    (step / "optimizer.bin").write_bytes(pickle.dumps(Bomb(marker)))
    status, words = run(*command, "--resume")
    assert (status, "[bad-checkpoint]" in words) == (1, True), words
    assert not marker.exists()


CODE = """
from pathlib import Path

Path({marker!r}).write_text("the code has run")

from transformers import PretrainedConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM


class EvilConfig(Qwen2Config):
    model_type = "evil"


class EvilModel(Qwen2ForCausalLM):
    config_class = EvilConfig


class EvilTokenizer(PreTrainedTokenizerFast):
    pass


def generate(model, **options):
    return None
"""


@pytest.mark.parametrize("known", [True, False], ids=["a known architecture", "an unknown one"])
def test_code_beside_a_model_does_not_run(known: bool, model: Path, other: Path, marker: Path, tmp_path: Path) -> None:
    code = CODE.format(marker=str(marker))
    (model / "evil.py").write_text(code)
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text(code)
    auto = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel", "AutoModelForCausalLM": "evil.EvilModel"}
    makers.edit_json(model / "config.json", auto_map=auto, **({} if known else {"model_type": "evil"}))
    makers.edit_json(
        model / "tokenizer_config.json",
        auto_map={"AutoTokenizer": [None, "evil.EvilTokenizer"]},
        tokenizer_class="EvilTokenizer",
    )
    every_command(model, other, tmp_path)
    assert not marker.exists()
    for out in tmp_path.glob("out*"):
        assert not list(out.rglob("*evil*"))


@pytest.mark.parametrize(("release", "refused"), [("4.57.6", True), ("5.0.0", False)])
def test_a_generate_of_its_own(model: Path, monkeypatch: pytest.MonkeyPatch, release: str, refused: bool) -> None:
    """transformers 4 runs it for every folder on the disk, and does not ask what is trusted."""
    check_code(model, trusted=False)
    (model / "custom_generate").mkdir()
    (model / "custom_generate" / "generate.py").write_text("")
    monkeypatch.setattr("importlib.metadata.version", lambda _: release)
    check_code(model, trusted=True)
    if refused:
        with pytest.raises(InputError, match="of its own"):
            check_code(model, trusted=False)
    else:
        check_code(model, trusted=False)


def test_links_of_the_hubs_cache_are_followed(model_of: Callable[..., Path], tmp_path: Path, other: Path) -> None:
    plain = model_of("qwen2", shards=2)
    (plain / "LICENSE").write_text("free")
    root = tmp_path / "models--somebody--model"
    snapshot = root / "snapshots" / "abc"
    (root / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for n, path in enumerate(sorted(plain.iterdir())):
        (root / "blobs" / f"{n:040x}").write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / f"{n:040x}")
    local = tmp_path / "local"  # a folder of absolute links into the cache
    local.mkdir()
    for path in snapshot.iterdir():
        (local / path.name).symlink_to(path.resolve())
    for n, folder in enumerate((snapshot, local)):
        out = tmp_path / f"out{n}"
        status, words = run(
            "transplant", "--model", folder, "--tokenizer", other, "--init", "subword", "-q", "--out", out
        )
        assert status == 0, words
        assert (out / "LICENSE").read_text() == "free"
        assert not any(path.is_symlink() for path in out.rglob("*"))


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "chat_template.jinja",
        "LICENSE",
        "1_Pooling/config.json",
        "additional_chat_templates/x.jinja",
    ],
)
def test_a_link_does_not_lead_out_of_its_folder(name: str, model: Path, other: Path, tmp_path: Path) -> None:
    """A folder from elsewhere could have its reader's own files put into a result that is then published."""
    path = model / name
    secret = tmp_path / "secret"
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        shutil.move(path, secret)
    else:
        secret.write_text("{}")
    path.symlink_to(Path("..", *[".."] * name.count("/"), "secret"))
    out = tmp_path / "out"
    status, words = run("transplant", "--model", model, "--tokenizer", other, "--init", "subword", "-q", "--out", out)
    assert (status, "[outside-link]" in words) == (1, True), words
    assert not out.exists()


def test_a_tokenizer_that_is_named_itself_may_be_a_link(model: Path, other: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to(other / "tokenizer.json")
    assert run("compare", tmp_path / "tokenizer.json", model)[0] == 0


def test_a_link_of_an_adapter_does_not_lead_out(tmp_path: Path) -> None:
    makers.make_model("qwen2", tmp_path / "model", vocab_size=300)
    make_adapter(tmp_path / "in")
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "in" / "adapter" / "README.md").symlink_to(tmp_path / "secret")
    status, words = run(
        "trim", "--model", tmp_path / "in" / "adapter", "--like", tmp_path / "in" / "trimmed", "--out", tmp_path / "out"
    )
    assert (status, "[outside-link]" in words) == (1, True), words


def test_an_index_names_files_of_its_folder_only(model_of: Callable[..., Path], tmp_path: Path, other: Path) -> None:
    model = makers.copy_model(model_of("qwen2", shards=2), tmp_path / "model")
    index = makers.read_json(model / "model.safetensors.index.json")
    file = next(iter(index["weight_map"].values()))
    shutil.copyfile(model / file, tmp_path / file)
    for wrong in (f"../{file}", str(tmp_path / file), "..", "", "a/../../" + file):
        changed = {key: wrong if value == file else value for key, value in index["weight_map"].items()}
        (model / "model.safetensors.index.json").write_text(json.dumps({**index, "weight_map": changed}))
        status, words = run("inspect", model)
        assert (status, "[outside-shard]" in words) == (1, True), words
