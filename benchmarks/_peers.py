"""What other tools need to run at their best beside tokswap."""

from __future__ import annotations

import json
from pathlib import Path


def for_mergekit(folder: Path, work: Path) -> Path:
    """Return a model folder that mergekit reads as it reads the published model.

    mergekit tells by the class of a tokenizer how words begin, and takes `Ġ` for all classes that it does not know. With
    the plain class, which a converted Gemma has, it would match no token that begins a word.

    Args:
        folder: The model.
        work: Where a folder of links goes.
    """
    settings = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    vocabulary = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    if "▁the" not in vocabulary:
        return folder
    made = work / f"for-mergekit-{folder.name}"
    made.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        if path.name != "tokenizer_config.json" and not (made / path.name).exists():
            (made / path.name).symlink_to(path.resolve())
    settings["tokenizer_class"] = "GemmaTokenizer"
    (made / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    return made
