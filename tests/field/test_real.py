"""Real tokenizers, from the folder that TOKSWAP_FIELD names: `make field` fetches them there and runs this."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from field.gguf_models import travel_gguf
from field.journey import Ground, in_a_process, travel

FOLDER = os.environ.get("TOKSWAP_FIELD", "")
INDEX = Path(FOLDER, "fetched.json")
NAMES = json.loads(INDEX.read_text("utf-8")) if FOLDER and INDEX.is_file() else {}


@pytest.mark.skipif(not NAMES, reason="real tokenizers: `make field` fetches them and tries them")
@pytest.mark.parametrize("name", NAMES or ["none"])
def test_a_real_tokenizer(name: str, tmp_path: Path, base: Path) -> None:
    if "reason" in NAMES[name]:
        pytest.skip(f"{name} is not to be had: {NAMES[name]['reason']}")
    folder, ground = Path(FOLDER, name), Ground(tmp_path, base=base, run=in_a_process)
    journey = travel_gguf if (folder / "vocab.gguf").is_file() else travel
    try:
        outcomes = list(journey(folder, ground))
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)  # a journey leaves some hundred MB
    record = Path(FOLDER, "outcomes", f"{name}.json")
    record.parent.mkdir(exist_ok=True)
    body = {**NAMES[name], "outcomes": [outcome.as_dict() for outcome in outcomes]}
    record.write_text(json.dumps(body, indent=2, ensure_ascii=False), encoding="utf-8")
    wrong = {outcome.step: outcome.details for outcome in outcomes if outcome.kind == "wrong"}
    assert wrong == {}
