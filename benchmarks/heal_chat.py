"""What healing does to a chat model: whether its replies still end, with and without conversations in the text.

    python benchmarks/heal_chat.py --tokenizer FOLDER [--rows ...] [--texts DIR] [--folder DIR]

SmolLM2-135M-Instruct gets the tokenizer of FOLDER (that of Llama 3.2), and is healed on 40 kB of the texts of
`quality_texts`. The conversations are short questions, and replies that the source model writes and ends itself. Replies
are counted by `tokswap eval --probe chat`; the excess is on the held-out texts. Each row is a process of its own; models
that are in the folder are not made again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from _machine import missing_rows, row_parser
from heal import excess
from quality_texts import fetch_texts, healing_texts

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from models import fetch

import tokswap
from tokswap.storage.resolve import resolve_model

TOPICS = (
    "the sea",
    "bread",
    "a bicycle",
    "winter",
    "a library",
    "trees",
    "the moon",
    "a train",
    "cooking rice",
    "a garden",
    "music",
    "a letter",
    "rivers",
    "glass",
    "paper",
    "honey",
    "a bridge",
    "the sun",
    "sleep",
    "a market",
    "shoes",
    "clouds",
    "tea",
    "a cat",
    "a map",
    "salt",
    "snow",
    "a clock",
    "birds",
    "chess",
)
FORMS = ("Tell me one thing about {}.", "Write two sentences about {}.", "Why do people like {}?")
ROWS = ("its own tokenizer", "before healing", "healed on text", "healed on text and conversations")
ASKED, TOKENS = 15, 90
TEXT = "A text for the evaluation, which needs one. The probe does not read it."


def main() -> None:
    parser = row_parser(__doc__, ROWS, "bench-chat")
    parser.add_argument("--tokenizer", type=Path, required=True)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.one is not None:
        print(json.dumps(one_row(given.one, given.tokenizer, given.texts, given.folder)))
        return
    fetch_texts(given.texts, ["held"])
    for name, row in missing_rows("heal-chat", given.rows).items():
        print(f"{name}: {row}")


def one_row(name: str, tokenizer: Path, texts: Path, folder: Path) -> dict[str, Any]:
    """Make the model of a row, and judge it, in this process."""
    source, student = resolve_model(str(fetch("smollm2"))), folder / "student"
    if not student.exists():
        tokswap.transplant_tokenizer(source, tokenizer, digits="single", out=student)
    model, row = {ROWS[0]: source, ROWS[1]: student}.get(name, folder / name.replace(" ", "-")), {}
    if not model.exists():
        chats = [conversations(source, folder / "chats.jsonl")] if name == ROWS[3] else []
        cpu = time.process_time()
        tokswap.heal_model(student, healing_texts(texts, 40), teacher=source, chats=chats, out=model)
        row["cpu_seconds"] = round(time.process_time() - cpu, 1)
    report = tokswap.evaluate_models([model], {"text": TEXT}, against=source, tokens=0, probes=["chat"])
    chat = report.models[-1].probes["chat"]
    row |= {"replies": round(chat.score, 3), "questions": chat.questions}
    return row | {"excess": excess(model, source, texts / "held")}


def conversations(source: Path, path: Path) -> Path:
    """Write conversations in which the source model ended its reply, once."""
    if path.exists():
        return path
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left")
    questions = [FORMS[n % len(FORMS)].format(topic) for n, topic in enumerate(TOPICS * 2)]
    torch.manual_seed(0)
    lines = []
    for begin in range(0, len(questions), ASKED):
        talks = [[{"role": "user", "content": question}] for question in questions[begin : begin + ASKED]]
        asked = tokenizer.apply_chat_template(
            talks, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
        )
        written = model.generate(**asked, max_new_tokens=TOKENS, do_sample=True, temperature=0.8)
        for talk, ids in zip(talks, written[:, asked["input_ids"].shape[1] :], strict=True):
            reply = tokenizer.decode(ids, skip_special_tokens=True).strip()
            if reply and (ids == tokenizer.eos_token_id).any():
                lines.append(json.dumps({"messages": [*talk, {"role": "assistant", "content": reply}]}) + "\n")
    path.write_text("".join(lines), "utf-8")
    return path


if __name__ == "__main__":
    main()
