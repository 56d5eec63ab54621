"""Gemma-3-270m with SmolLM2's tokenizer, before and after.

python examples/demo.py [OUTPUT_FOLDER]
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here comes from a model hub
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")

from models import fetch

import tokswap
from tokswap.evaluation.continuations import greedy
from tokswap.evaluation.losses import bits_per_byte
from tokswap.evaluation.models import load_model
from tokswap.report.page import check_page, make_page, write_page
from tokswap.storage.resolve import resolve_model

PROMPT = "The ferry leaves the harbour at nine, and"
TEXTS = Path(__file__).parent.parent / "tests" / "texts"


@dataclass(frozen=True)
class Measured:
    """What the demo shows of a model.

    Attributes:
        name: Its line in the output.
        bits: Text -> bits per byte.
        tokens_per_byte: Of the English text.
        continuation: How the model continues the prompt.
    """

    name: str
    bits: dict[str, float]
    tokens_per_byte: float
    continuation: str


def measure(name: str, folder: Path | str) -> Measured:
    """Load a model and measure it."""
    model, tokenizer = load_model(folder)
    texts = {text: (TEXTS / f"{text.lower()}.txt").read_text("utf-8") for text in ("English", "code")}
    scores = {text: bits_per_byte(model, tokenizer, content) for text, content in texts.items()}
    return Measured(
        name,
        bits={text: score.bits_per_byte for text, score in scores.items()},
        tokens_per_byte=scores["English"].tokens_per_byte,
        continuation=greedy(model, tokenizer, PROMPT, 16),
    )


def show(models: list[Measured]) -> None:
    """Print bits per byte, the excess over the first model, and the continuations."""
    source = models[0].bits
    print(f"\n{'bits per byte (excess)':34}{'English':>16}{'code':>16}{'tokens/byte':>13}")
    for one in models:
        english, code = (f"{one.bits[text]:.3f} ({one.bits[text] - source[text]:+.3f})" for text in ("English", "code"))
        print(f"{one.name:34}{english:>16}{code:>16}{one.tokens_per_byte:13.3f}")
    print(f"\ncontinuations of {PROMPT!r}:")
    for one in models:
        print(f"{one.name:34}{one.continuation!r}")


def main() -> None:
    """Transplant twice, measure, and write a report page."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    files = {name: fetch(name) for name in ("gemma", "smollm2")}
    begin = time.perf_counter()
    print("dequantising the two models (once) ...", flush=True)
    source, target = (resolve_model(str(files[name])) for name in ("gemma", "smollm2"))
    models = [measure("Gemma-3-270m, own tokenizer", source)]
    for init in ("omp", "auto"):
        folder = out / f"gemma-smollm2-{init}"
        command = f"tokswap transplant --model {source.name} --tokenizer {target.name} --init {init} --out {folder}"
        print(command, flush=True)
        result = tokswap.transplant_tokenizer(source, target, init=init, out=folder, force=True)
        rows, seconds = result.plan.coverage["missing"], result.seconds["all"]
        print(f"  initialised {rows:,} rows and wrote the checkpoint in {seconds:.0f} s", flush=True)
        models.append(measure(f"with SmolLM2's tokenizer, {init}", folder))
    show(models)
    page = check_page(out / "report.html")
    write_page(page, make_page("transplant", result.as_dict()))
    print(f"\n{time.perf_counter() - begin:.0f} s after downloads. Report page of `{init}`: {page}")
    print(f"Next: tokswap verify {folder} --against {source}")


if __name__ == "__main__":
    main()
