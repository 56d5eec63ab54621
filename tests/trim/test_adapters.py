"""Adapters of peft follow a trim, or are refused: base and adapter together compute the same on kept tokens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import makers
import pytest
import tools
from commands import one_document, run

Make = Callable[..., Path]

pytestmark = [
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft.*"),
]
ATTENTION = {"bert": "query", "gpt2": "c_attn", "mamba": "x_proj", "modernbert": "Wqkv"}


@dataclass(frozen=True)
class Case:
    """An adapter: the architecture of its model, its class in peft, and its settings."""

    architecture: str
    kind: str = "LoraConfig"
    targets: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def config(self) -> Any:
        import peft

        targets = [*self.targets] or [ATTENTION.get(self.architecture, "q_proj")]
        return getattr(peft, self.kind)(target_modules=targets, **self.settings)


FOLLOWING = {
    "factors": Case("llama", targets=("q_proj", "lm_head", "embed_tokens")),
    "factors and a bias": Case("llama", targets=("lm_head",), settings={"lora_bias": True}),
    "factors of tied embeddings": Case("llama-tied", targets=("q_proj", "embed_tokens")),
    "factors of gpt2": Case("gpt2", targets=("wte",)),
    "factors of bert": Case("bert", targets=("query", "decoder", "word_embeddings")),
    "factors of mamba": Case("mamba", targets=("x_proj", "embeddings")),
    "DoRA on lm_head": Case("llama", targets=("q_proj", "lm_head"), settings={"use_dora": True}),
    "DoRA on a tied lm_head": Case("llama-tied", targets=("lm_head",), settings={"use_dora": True}),
    "IA3": Case("llama", "IA3Config", ("k_proj", "lm_head"), {"feedforward_modules": []}),
    "IA3 on the input of lm_head": Case("llama", "IA3Config", ("lm_head",), {"feedforward_modules": ["lm_head"]}),
    "AdaLoRA": Case("llama", "AdaLoraConfig", ("lm_head",), {"total_step": 9, "tinit": 0, "tfinal": 0}),
    "whole matrices": Case("llama", settings={"modules_to_save": ["lm_head", "embed_tokens"]}),
    "a whole head of bert": Case("bert", settings={"modules_to_save": ["cls"]}),
    "whole embeddings of modernbert": Case("modernbert", settings={"modules_to_save": ["tok_embeddings"]}),
    "every bias": Case("bert", settings={"bias": "all"}),
    "single rows": Case("llama", "TrainableTokensConfig", ("embed_tokens",), {"token_indices": [2, 1]}),
}
REFUSED = {
    "DoRA on the embedding": Case("llama", targets=("embed_tokens",), settings={"use_dora": True}),
    "PiSSA": Case("llama", targets=("lm_head",), settings={"init_lora_weights": "pissa"}),
    "VeRA": Case("llama", "VeraConfig", ("lm_head",)),
    "LoHa": Case("llama", "LoHaConfig", ("lm_head",)),
    "LoKr": Case("llama", "LoKrConfig", ("lm_head",)),
    "OFT": Case("llama", "OFTConfig", ("lm_head",), {"oft_block_size": 4}),
    "BOFT": Case("llama", "BOFTConfig", ("lm_head",), {"boft_block_size": 4}),
}


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """A model and its trim, which has padding rows."""
    made: dict[str, tuple[Path, Path]] = {}

    def find(architecture: str) -> tuple[Path, Path]:
        if architecture not in made:
            folder = tmp_path_factory.mktemp(architecture)
            source, trimmed, corpus = folder / "source", folder / "trimmed", folder / "corpus.txt"
            corpus.write_text(makers.shipped_text("english")[:1500])
            _make(architecture, source)
            run("trim", "--model", source, "--corpus", corpus, "--pad-to-multiple", 16, "--out", trimmed)
            made[architecture] = source, trimmed
        return made[architecture]

    return find


def _make(architecture: str, folder: Path) -> None:
    import torch
    import transformers

    if architecture not in ("mamba", "modernbert"):
        makers.make_model(architecture, folder, vocab_size=640)
        return
    makers.make_tokenizer("byte-level", folder, vocab_size=640)
    ids = {f"{role}_token_id": 0 for role in ("pad", "bos", "eos", "cls", "sep")}
    size = {"vocab_size": 640, "hidden_size": 16, "num_hidden_layers": 2}
    torch.manual_seed(0)
    if architecture == "mamba":
        config = transformers.MambaConfig(**size, state_size=4, time_step_rank=2, tie_word_embeddings=True, **ids)
        model: Any = transformers.MambaForCausalLM(config)
    else:
        more = {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
        config = transformers.ModernBertConfig(**size, **more, attn_implementation="eager", **ids)
        model = transformers.ModernBertForMaskedLM(config)
    model.save_pretrained(folder)


def tuned(case: Case, source: Path, folder: Path) -> Path:
    """Save an adapter that changes every tensor that it has."""
    import peft
    import torch

    model = peft.get_peft_model(load(source, case), case.config())
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


def load(folder: Path, case: Case) -> Any:
    import transformers

    name = tools.AUTO.get("bert" if case.architecture == "modernbert" else case.architecture, "AutoModelForCausalLM")
    return getattr(transformers, name).from_pretrained(folder).eval()


@pytest.mark.parametrize("name", FOLLOWING)
def test_an_adapter_follows(name: str, bases: Callable[[str], tuple[Path, Path]], tmp_path: Path) -> None:
    import peft
    import torch

    case = FOLLOWING[name]
    source, trimmed = bases(case.architecture)
    adapter = tuned(case, source, tmp_path / "adapter")
    run("trim", "--model", adapter, "--like", trimmed, "--out", tmp_path / "out")
    new_of = {int(old): new for old, new in makers.read_json(trimmed / "vocab_map.json")["new_id_of"].items()}
    old = sorted(new_of)
    ids = [*old[:4], *old[40:70]]
    before = peft.PeftModel.from_pretrained(load(source, case), adapter).eval()
    after = peft.PeftModel.from_pretrained(load(trimmed, case), tmp_path / "out").eval()
    with torch.inference_mode():
        expected = before(input_ids=torch.tensor([ids])).logits[0][:, old]
        plain = load(source, case)(input_ids=torch.tensor([ids])).logits[0][:, old]
        logits = after(input_ids=torch.tensor([[new_of[token] for token in ids]])).logits[0]
    torch.testing.assert_close(logits[:, [new_of[token] for token in old]], expected, atol=1e-5, rtol=1e-5)
    assert (expected - plain).abs().max() > 0.01
    assert logits.shape[1] % 16 == 0
    assert (logits.argmax(dim=1) < len(new_of)).all()  # no padding row


@pytest.mark.parametrize("name", ["factors", "whole matrices"])
def test_a_followed_adapter_names_the_changed_model(
    name: str, bases: Callable[[str], tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AutoPeftModel and inference engines load the model that an adapter names."""
    import peft
    import torch

    source, trimmed = bases("llama")
    adapter = tuned(FOLLOWING[name], source, tmp_path / "adapter")
    shutil.copy(source / "tokenizer.json", adapter)
    shutil.copy(source / "tokenizer_config.json", adapter)
    makers.edit_json(adapter / "adapter_config.json", revision="old")
    monkeypatch.chdir(trimmed.parent)
    run("trim", "--model", adapter, "--like", trimmed.name, "--out", tmp_path / "out")
    monkeypatch.chdir(tmp_path)
    ids = torch.tensor([[*range(5, 40)]])
    expected = peft.PeftModel.from_pretrained(load(trimmed, FOLLOWING[name]), tmp_path / "out").eval()(ids).logits
    found = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "out").eval()(ids).logits
    torch.testing.assert_close(found, expected)


@pytest.fixture(scope="session")
def extensions(
    bases: Callable[[str], tuple[Path, Path]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Path]]:
    """A model and its extension by more tokens than it has padding rows."""
    made: dict[str, tuple[Path, Path]] = {}

    def find(architecture: str) -> tuple[Path, Path]:
        if architecture not in made:
            folder, source = tmp_path_factory.mktemp(architecture), bases(architecture)[0]
            (folder / "terms.txt").write_text("".join(f"harbour{word}\n" for word in ("master", "town", "bridge")))
            command = ("extend", "--model", source, "--tokens", folder / "terms.txt", "--init", "subword")
            run(*command, "--pad-to-multiple", 16, "--out", folder / "out")
            made[architecture] = source, folder / "out"
        return made[architecture]

    return find


@pytest.mark.parametrize("name", FOLLOWING)
def test_an_adapter_follows_an_extension(
    name: str, extensions: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    import peft
    import torch
    from transformers import AutoTokenizer

    case = FOLLOWING[name]
    source, longer = extensions(case.architecture)
    adapter = tuned(case, source, tmp_path / "adapter")
    run("extend", "--model", adapter, "--like", longer, "--out", tmp_path / "out")
    old, new = (len(AutoTokenizer.from_pretrained(folder)) for folder in (source, longer))
    ids = torch.tensor([[*range(4), *range(40, 70), old - 1]])
    before = peft.PeftModel.from_pretrained(load(source, case), adapter).eval()
    after = peft.PeftModel.from_pretrained(load(longer, case), tmp_path / "out").eval()
    with torch.inference_mode():
        expected, logits = before(input_ids=ids).logits[..., :old], after(input_ids=ids).logits
        more = after(input_ids=torch.tensor([[new - 1, *range(4)]])).logits
    torch.testing.assert_close(logits[..., :old], expected, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(more).all()


def test_an_adapter_goes_to_the_folder_of_its_user(
    extensions: Callable[[str], tuple[Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, longer = extensions("llama")
    adapter = tuned(FOLLOWING["factors"], source, tmp_path / "adapter")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run("extend", "--model", adapter, "--like", longer, "--out", "~/followed")
    assert (tmp_path / "home/followed/adapter_config.json").is_file()
    assert not (tmp_path / "~").exists()


def test_an_adapter_needs_a_model_to_follow(extensions: Callable[[str], tuple[Path, Path]], tmp_path: Path) -> None:
    source, longer = extensions("llama")
    adapter = tuned(FOLLOWING["factors"], source, tmp_path / "adapter")
    assert "--like" in run("extend", "--model", adapter, "--out", tmp_path / "out", status=2).stderr
    command = ("extend", "--model", source, "--like", longer, "--out", tmp_path / "out", "--json")
    assert one_document(run(*command, status=2).stdout)["error"]["code"] == "not-an-adapter"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", REFUSED)
def test_an_adapter_that_depends_on_every_row_is_refused(
    name: str, bases: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    source, trimmed = bases(REFUSED[name].architecture)
    adapter = tuned(REFUSED[name], source, tmp_path / "adapter")
    result = run("trim", "--model", adapter, "--like", trimmed, "--out", tmp_path / "out", "--json", status=1)
    assert one_document(result.stdout)["error"]["code"] == "unsupported-adapter"
    assert not (tmp_path / "out").exists()


def test_the_words_that_call_an_adapter_follow(bases: Callable[[str], tuple[Path, Path]], tmp_path: Path) -> None:
    """An aLoRA works after certain ids only, so with old ids it would never begin."""
    from transformers import AutoTokenizer

    source, trimmed = bases("llama")
    before, after = (AutoTokenizer.from_pretrained(folder) for folder in (source, trimmed))
    words = before("the ferry", add_special_tokens=False)["input_ids"]
    settings = {"task_type": "CAUSAL_LM", "alora_invocation_tokens": words}
    adapter = tuned(Case("llama", settings=settings), source, tmp_path / "adapter")
    run("trim", "--model", adapter, "--like", trimmed, "--out", tmp_path / "out")
    found = makers.read_json(tmp_path / "out" / "adapter_config.json")["alora_invocation_tokens"]
    assert found == after("the ferry", add_special_tokens=False)["input_ids"] != words


def test_an_unknown_tensor_of_the_vocabularys_size_is_refused(
    bases: Callable[[str], tuple[Path, Path]], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import save_file

    _, trimmed = bases("llama")
    (tmp_path / "adapter").mkdir()
    makers.write_json(tmp_path / "adapter" / "adapter_config.json", {"peft_type": "LORA", "r": 4})
    tensors = {"base_model.model.model.token_scale.lora_B.weight": torch.zeros(640, 4)}
    save_file(tensors, tmp_path / "adapter" / "adapter_model.safetensors")
    result = run("trim", "--model", tmp_path / "adapter", "--like", trimmed, "--out", tmp_path / "out", status=1)
    assert "token_scale" in result.stderr
