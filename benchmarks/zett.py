"""What a hypernetwork is worth: train a small language model and its hypernetwork, then change the model's tokenizer.

    python benchmarks/zett.py --work DIR [--handbook FOLDER] [--model-steps 1500] [--steps 1200] [--no-real]

All texts are on the machine: the sources of Python's standard library, and the Debian handbook in English where it is
installed (`apt install debian-handbook`). Some files are held out, half of them for choices (`--dev`) and half for the
result. Neither the model nor the hypernetwork nor a tokenizer is trained on these. There are three target tokenizers:
byte-level BPE and SentencePiece BPE, trained on the same text with twice the model's vocabulary, and that of SmolLM2,
which is the donor for `omp`. What is in DIR already is used again.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import sys
import sysconfig
import time
import zlib
from pathlib import Path
from typing import Any

from _machine import keep

HANDBOOK = Path("/usr/share/doc/debian-handbook/html/en-US")
LEFT_OUT = (
    "test",
    "tests",
    "idlelib",
    "encodings",
    "lib2to3",
    "distutils",
    "site-packages",
    "dist-packages",
    "turtledemo",
)
VOCABULARY, WINDOW, WIDTH, LAYERS = 4096, 256, 256, 3

Texts = dict[str, list[str]]


def texts(handbook: Path) -> tuple[Texts, Texts, Texts]:
    """Return the documents to train on, to score, and to choose by, each by kind: code and english."""
    learnt, held, dev = ({"code": [], "english": []} for _ in range(3))
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        if not set(parts) & set(LEFT_OUT) and parts[0] != "pydoc_data":
            sort_in(learnt, held, dev, "code", "/".join(parts), path.read_text("utf-8", "replace"))
    for path in sorted(handbook.glob("*.html")):
        sort_in(learnt, held, dev, "english", path.name, prose(path))
    return learnt, held, dev


def prose(path: Path) -> str:
    """Return the text of a page of the handbook."""
    body = re.sub(r"(?s)<(script|style|head).*?</\1>", "", path.read_text("utf-8"))
    lines = html.unescape(re.sub(r"<[^>]+>", "", re.sub(r"</(p|h\d|li|pre|dt|dd)>", "\n", body)))
    return re.sub(r"\s*\n\s*", "\n", lines).strip()


def sort_in(learnt: Texts, held: Texts, dev: Texts, kind: str, name: str, text: str) -> None:
    digest = zlib.crc32(name.encode())
    (learnt if digest % 12 else held if digest // 12 % 2 else dev)[kind].append(text)


def make_tokenizer(documents: list[str], folder: Path, size: int = VOCABULARY) -> None:
    """Train a byte-level BPE tokenizer of GPT-2's kind."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=end).save_pretrained(folder)


def train_model(
    documents: list[str], folder: Path, steps: int, vocabulary: int = VOCABULARY, width: int = WIDTH
) -> dict[str, float]:
    """Train the language model and its tokenizer from scratch and save both."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(documents, folder, vocabulary)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [token for text in documents for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    stream = torch.tensor(ids)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.05)
    used = time.process_time()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 100) * (1.0 - 0.95 * step / steps)
        starts = torch.randint(0, len(stream) - WINDOW - 1, (16,))
        batch = torch.stack([stream[at : at + WINDOW] for at in starts.tolist()])
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 50 == 0:
            print(f"model: step {step}, loss {loss.item():.3f}", flush=True)
    model.save_pretrained(folder)
    minutes = round((time.process_time() - used) / 60, 1)
    result = {"steps": steps, "tokens_seen": steps * 16 * WINDOW, "tokens_of_text": len(ids), "cpu_minutes": minutes}
    (folder / "training.json").write_text(json.dumps(result))
    return result


def train_hypernet(
    texts: list[Path], model: Path, out: Path, *, steps: int, identity_steps: int, by_text: bool = False
) -> dict[str, float]:
    """Train a hypernetwork on files, or continue an earlier run. Returns all its steps and minutes."""
    from tokswap.hypernet import TrainSettings
    from tokswap.hypernet.train import train

    settings = TrainSettings(
        steps=steps,
        identity_steps=identity_steps,
        batch=32,
        length=64,
        identity_batch=512,
        vocabulary=16384,
        negatives=768,
        hidden=384,
        layers=2,
        rate=4e-4,
        identity_rate=1e-3,
        clip=1.0,
        bf16=True,
        save_every=100,
        by_text=by_text,
    )
    train(str(model), texts, out, settings, resume=True, progress=True)
    return training_of(out)


def training_of(hypernet: Path) -> dict[str, float]:
    """Return the steps and minutes that a hypernetwork was trained."""
    metrics = [json.loads(line) for line in (hypernet / "training" / "metrics.jsonl").read_text().splitlines()]
    return {"steps": len(metrics), "minutes": round(sum(line["seconds"] for line in metrics) / 60, 1)}


def make_sentencepiece(documents: list[str], folder: Path, size: int) -> None:
    """Train a tokenizer of Gemma's kind: `▁` for spaces, lines as pretokens, and byte fallback."""
    from collections import Counter

    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    fixed = ["<pad>", "<eos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split(Regex("▁*[^▁]+|▁+"), "isolated")
    count = Counter("".join(documents).replace(" ", "▁"))
    alphabet = [character for character, number in count.most_common(200) if number > 20 and character != "\n"]
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(fixed), initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False
    )
    trained.train_from_iterator([line for text in documents for line in text.splitlines()], trainer)
    model = json.loads(trained.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    merges = [tuple(merge) for merge in model["merges"]]
    vocab = {piece: n for n, piece in enumerate([*fixed, *pieces])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    roles = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)


def score(folder: Path, held: dict[str, str]) -> dict[str, float]:
    """Return bits per byte by kind of text."""
    from tokswap.evaluation.losses import bits_per_byte
    from tokswap.evaluation.models import load_model

    model, tokenizer = load_model(folder)
    return {kind: bits_per_byte(model, tokenizer, text).bits_per_byte for kind, text in held.items()}


def compare(
    model: Path, hypernet: Path, targets: dict[str, tuple[Path, bool]], work: Path, held: dict[str, str]
) -> Any:
    """Transplant with every target tokenizer and every method, and score the results.

    Args:
        model: The source model.
        hypernet: Its hypernetwork.
        targets: Name -> folder of a tokenizer, and whether that is a donor too.
        work: Where results are written.
        held: Kind -> text to score on.

    Returns:
        The bits per byte of the source model, and a row for each result.
    """
    import tokswap

    base = score(model, held)
    print("the model itself", {kind: round(bits, 4) for kind, bits in base.items()}, flush=True)
    rows = []
    for target, (folder, has_donor) in targets.items():
        for method, settings in {
            "subword": {},
            **({"omp": {}} if has_donor else {}),
            "zett": {"path": str(hypernet)},
            "zett, all rows": {"path": str(hypernet), "replace": True},
        }.items():
            out = work / "result"
            report = tokswap.transplant_tokenizer(
                str(model), str(folder), init=method.split(",")[0], settings=settings, out=out, force=out.exists()
            )
            bits = score(out, held)
            row = {
                "target": target,
                "tokens": len(report.alignment),
                "initialised": report.plan.coverage["missing"],
                "method": method,
                "rows_seconds": round(report.seconds["rows"], 2),
                **{kind: round(bits[kind] - base[kind], 4) for kind in base},
            }
            rows.append(row)
            print(row, flush=True)
    return {"own_bits_per_byte": base, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--handbook", type=Path, default=HANDBOOK)
    parser.add_argument("--model-steps", type=int, default=1500)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--identity-steps", type=int, default=1500)
    parser.add_argument("--real", help="folder of SmolLM2-135M [default: fetch it]")
    parser.add_argument("--no-real", action="store_true", help="leave out the tokenizer of SmolLM2")
    parser.add_argument("--dev", action="store_true", help="score on the texts for choices")
    parser.add_argument("--hypernet", type=Path, help="score this hypernetwork instead of training one")
    args = parser.parse_args()
    learnt, held, dev = texts(args.handbook)
    documents = learnt["code"] + 2 * learnt["english"]  # there is more code than prose
    model, hypernet = args.work / "model", args.hypernet or args.work / "hypernet"
    if not (model / "training.json").is_file():
        print(train_model(documents, model, args.model_steps), flush=True)
    targets = {"byte-level BPE": (args.work / "bpe", False), "SentencePiece BPE": (args.work / "sentencepiece", False)}
    if not (args.work / "sentencepiece" / "tokenizer.json").is_file():
        make_tokenizer(documents, args.work / "bpe", 2 * VOCABULARY)
        make_sentencepiece(documents, args.work / "sentencepiece", 2 * VOCABULARY)
    if not args.no_real:
        sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
        from models import fetch

        from tokswap.storage.resolve import resolve_model

        targets["SmolLM2"] = (resolve_model(args.real or str(fetch("smollm2"))), True)
    if not args.hypernet:
        corpus = args.work / "corpus.txt"
        corpus.write_text("\n".join(documents), "utf-8")
        train_hypernet([corpus], model, hypernet, steps=args.steps, identity_steps=args.identity_steps)
    chosen = {kind: "\n".join(documents)[:60000] for kind, documents in (dev if args.dev else held).items()}
    result = compare(model, hypernet, targets, args.work, chosen)
    result["texts"] = {kind: {"learnt": sum(map(len, learnt[kind])), "scored": len(chosen[kind])} for kind in learnt}
    result["model"] = json.loads((model / "training.json").read_text())
    result["hypernet"] = training_of(hypernet)
    if not args.dev:
        print(keep("zett", result))


if __name__ == "__main__":
    main()
