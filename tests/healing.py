"""Healing and new tokens, tried on tiny random causal language models of any architecture.

`benchmarks/compatibility.py` tries all of them, tests/heal/test_architectures.py those that were wrong once.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import architectures
import safetensors.torch
import tools
import torch
from architectures import IDS, TOKENS, Loaded

import tokswap
from tokswap.checkpoint.layout import lay_out
from tokswap.checkpoint.source import open_source
from tokswap.checkpoint.writer import write_result
from tokswap.heal.changes import changed_edit
from tokswap.heal.inputs import check_body, check_model
from tokswap.heal.options import HealOptions
from tokswap.heal.student import Student

TERMS = (" watchtower", " ferryman", "Zwischenraum")


@dataclass(frozen=True)
class HealOutcome:
    """The outcome for one architecture: "works", "refuses: CODE: ...", "fails: ..." or "not made: ...".

    Attributes:
        model_type: Its name in configs.
        architecture: Its class in transformers.
        adapter: `tokswap heal`.
        left: Share of the body that an adapter leaves as it is, in percent; None without an adapter.
        full: `tokswap heal --train full`.
        extend: `tokswap extend`.
    """

    model_type: str
    architecture: str
    adapter: str
    left: int | None
    full: str
    extend: str


def try_healing(model_type: str, work: Path, tokenizers: tuple[Path, Path]) -> HealOutcome:
    """Make a model of an architecture, train it, and give it new tokens.

    1. It is trained for two steps, with a LoRA adapter and in full, and written as `tokswap heal` does. The written
       model, and with an adapter its PEFT folder too, gives the logits of the trained one.
    2. It gets new tokens: hidden states of a text without one stay equal bit for bit, and logits of old tokens too.
    """
    name = architectures.listed("causal")[model_type]
    try:
        source, base = made(model_type, work, tokenizers)
    except Exception as error:
        reason = f"not made: {type(error).__name__}: {architectures._line(error)}"
        return HealOutcome(model_type, name, adapter=reason, left=None, full=reason, extend=reason)
    left: list[int] = []

    def adapter() -> str:
        left.append(round(100 * healed(source, base, work, "adapter")))
        return "works"

    def full() -> str:
        healed(source, base, work, "full")
        return "works"

    outcomes = [architectures._result(job) for job in (adapter, full, lambda: _extended(source, base, work))]
    return HealOutcome(model_type, name, outcomes[0], left[0] if left else None, full=outcomes[1], extend=outcomes[2])


def made(model_type: str, work: Path, tokenizers: tuple[Path, Path]) -> tuple[Path, Loaded]:
    """Save a tiny random model, and load it as a user does. Raises whatever transformers does."""
    pad = architectures.FIXED.get(model_type, {}).get("pad_token_id", architectures._IDS["pad"])
    own = architectures._with_pad(tokenizers[0], work / "own", pad)
    source = architectures.make_tiny("causal", model_type, work / "source", own)
    base = Loaded("causal", source)
    base.run(IDS)
    return source, base


def healed(source: Path, base: Loaded, work: Path, train: str) -> float:
    """Train a model for two steps, write it, and compare. Returns the share of the body that an adapter leaves."""
    model = open_source(str(source))
    check_model(model.checkpoint)
    reach = check_body(model, train, trust_remote_code=False)
    assert reach is not None, "it cannot be made without weights"
    student = trained(source, train)
    if train == "adapter":
        learning = sum(one.numel() for one in student.learning().values())
        planned = 4 * reach.sides + sum(one.numel() for one in student.matrices())
        assert learning == planned, f"the plan says that {planned:,} parameters learn, and {learning:,} do"
    expected = logits(student.causal)
    assert not close(expected, logits(base.model)), "nothing was trained"
    edit, solve = changed_edit(model, student, trust_remote_code=False)
    write_result(edit, lay_out(edit), work / train, solve)
    found = architectures._reloaded(base, work / train)
    assert close(logits(found.model), expected), "the written model predicts something else than the trained one"
    old, new = tools.weights(source), tools.weights(work / train)
    assert {name: (one.shape, one.dtype) for name, one in old.items()} == {
        name: (one.shape, one.dtype) for name, one in new.items()
    }
    assert _tied(found.model) == _tied(base.model)
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert changed <= {*edit.changed, *(name for one in model.checkpoint.matrices for name in one.names)}
    if train == "adapter":
        from peft import PeftModel

        student.adapted.save_pretrained(work / "peft", save_embedding_layers=True)
        beside = PeftModel.from_pretrained(Loaded("causal", source).model, work / "peft").eval()
        assert close(logits(beside.base_model.model), expected), "the PEFT folder predicts something else"
    return reach.share


def trained(source: Path, train: str) -> Student:
    """Return a model after two steps with random targets, as a healing loads it."""
    from tokswap.evaluation.models import load_model

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT and transformers, of tiny configs
        options = HealOptions(train=train, rank=4) if train == "adapter" else HealOptions(train=train)
        student = Student(load_model(source)[0], options)
    rows = logits(student.causal).shape[1]  # not all rows of padding are predicted
    for name, one in student.learning().items():
        if "lora_B" in name:
            torch.nn.init.normal_(one, std=0.02)  # from zero, the other half gets no gradient
    ids = torch.tensor([IDS, IDS])
    wanted = {
        "tokens": torch.randint(rows, (10,)),
        "ids": torch.randint(rows, (10, 3)),
        "probabilities": torch.rand(10, 3) / 4,
    }
    learning = student.train().learning()
    safetensors.torch.save({name: one.detach() for name, one in learning.items()})  # as checkpoints of a training do
    for _ in range(2):  # some weights get a gradient once others have moved
        found = student(ids, torch.ones_like(ids), torch.arange(10), **wanted)
        assert torch.isfinite(found["loss"])
        found["loss"].backward()
        gone = {name for name, one in learning.items() if one.grad is not None and bool(one.grad.any())}
        with torch.no_grad():
            for name in gone:
                learning[name].add_(torch.randn_like(learning[name]) * 0.02)
    assert all(one.grad is not None and bool(one.grad.any()) for one in student.matrices()), "embeddings do not learn"
    assert len(gone) > len(student.matrices()), "nothing of the body learns"
    for name in [name for name in learning if "lora_B" in name and name not in gone]:
        torch.nn.init.zeros_(learning[name])  # the model reads the weight of this layer without calling it
    return student.eval()


def logits(model: Any) -> torch.Tensor:
    """Return the logits for some tokens, float32 [n, V]."""
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.tensor([IDS]), use_cache=False).logits[0].float()
    return found


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two models predict the same."""
    return float((one - other).abs().max()) < 1e-4 * float(other.std())


def _tied(model: Any) -> bool:
    return model.get_input_embeddings().weight is model.get_output_embeddings().weight


def _extended(source: Path, base: Loaded, work: Path) -> str:
    """Give the model new tokens."""
    from transformers import AutoTokenizer

    (work / "terms.txt").write_text("\n".join(TERMS), "utf-8")
    tokswap.extend_model(str(source), tokens=[work / "terms.txt"], init="subword", out=work / "extended")
    result = architectures._reloaded(base, work / "extended")
    before, old = base.run(IDS)
    after, new = result.run(IDS)
    assert all(torch.equal(a, b) for a, b in zip(old, new, strict=True)), "a hidden state has changed"
    wrong = float((after[:, :TOKENS] - before[:, :TOKENS]).abs().max())
    assert wrong < 1e-4, f"logits of old tokens differ by {wrong:.2g}"
    tokenizer = AutoTokenizer.from_pretrained(work / "extended")
    ids = tokenizer("the" + "".join(TERMS[:2]), add_special_tokens=False)["input_ids"]
    assert sum(token >= TOKENS for token in ids) == 2, f"the new tokens are not in {ids}"
    result.run(ids)
    architectures._verified(source, work / "extended")
    return "works"
