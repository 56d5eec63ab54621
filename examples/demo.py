"""The demo: Gemma-3-270m with SmolLM2's tokenizer, before and after.

python examples/demo.py [OUTPUT_FOLDER]
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here comes from a model hub
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TQDM_DISABLE", "1")

from models import fetch

import tokswap
from tokswap.evaluation.losses import bits_per_byte, greedy, load_model
from tokswap.report.page import check_page, make_page, write_page
from tokswap.storage.resolve import resolve_model

PROMPT = "The ferry leaves the harbour at nine, and"
TEXTS = Path(__file__).parent.parent / "tests" / "texts"


def measure(folder: Path | str) -> tuple[dict[str, float], float, str]:
    """Return bits per byte by text, tokens per byte of English, and a greedy sentence."""
    model, tokenizer = load_model(folder)
    texts = {
        name: (TEXTS / file).read_text("utf-8") for name, file in (("English", "english.txt"), ("code", "code.txt"))
    }
    scores = {name: bits_per_byte(model, tokenizer, text) for name, text in texts.items()}
    return (
        {name: score.bits_per_byte for name, score in scores.items()},
        scores["English"].tokens_per_byte,
        greedy(model, tokenizer, PROMPT, 16),
    )


def main() -> None:
    """Run the demo."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    gguf = {name: fetch(name) for name in ("gemma", "smollm2")}
    begin = time.perf_counter()
    print("dequantising the two models (once) ...", flush=True)
    source, target = (resolve_model(str(gguf[name])) for name in ("gemma", "smollm2"))
    rows = [("Gemma-3-270m, own tokenizer", measure(source))]
    for init in ("omp", "auto"):
        folder = out / f"gemma-smollm2-{init}"
        print(
            f"tokswap transplant --model {source.name} --tokenizer {target.name} --init {init} --out {folder}",
            flush=True,
        )
        report = tokswap.transplant_tokenizer(str(source), str(target), init=init, out=folder, force=True)
        made = report.plan.coverage["missing"]
        print(f"  {made:,} rows made and the checkpoint written in {report.seconds['all']:.0f} s", flush=True)
        rows.append((f"with SmolLM2's tokenizer, {init}", measure(folder)))
    print(f"\n{'bits per byte (excess)':34}{'English':>16}{'code':>16}{'tokens/byte':>13}")
    base = rows[0][1][0]
    for name, (bits, tokens, _) in rows:
        cells = [f"{bits[text]:.3f} ({bits[text] - base[text]:+.3f})" for text in ("English", "code")]
        print(f"{name:34}{cells[0]:>16}{cells[1]:>16}{tokens:13.3f}")
    print(f"\n{PROMPT!r} goes on:")
    for name, (_, _, sentence) in rows:
        print(f"{name:34}{sentence!r}")
    page = check_page(out / "report.html")
    write_page(page, make_page("transplant", report.as_dict()))
    print(f"\n{time.perf_counter() - begin:.0f} s after downloads. What `{init}` did, as a page: {page}")
    print(f"Next: tokswap verify {folder} --against {source}")


if __name__ == "__main__":
    main()
