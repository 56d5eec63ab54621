"""What a checkpoint or a tokenizer is, as plain data."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tokswap.checkpoint.reader import has_weights, open_checkpoint
from tokswap.tokenizer.describe import describe_tokenizer
from tokswap.tokenizer.tokenizer import read_tokenizer


def inspect_checkpoint(path: Path) -> dict[str, Any]:
    """Describe a model folder, a tokenizer folder or a tokenizer.json, without reading a weight.

    Keys: tokenizer, and for a model also model and tables.
    """
    result: dict[str, Any] = {"path": str(path)}
    if path.is_dir() and has_weights(path):
        checkpoint = open_checkpoint(path)
        architectures = checkpoint.config.get("architectures") or [checkpoint.config.get("model_type", "unknown")]
        result["model"] = {
            "architecture": architectures[0],
            "parameters": sum(int(np.prod(info.shape)) for info in checkpoint.tensors.values()),
            "bytes": checkpoint.nbytes,
            "shards": len(checkpoint.shards),
            "tied": checkpoint.tied,
        }
        tokenizer = read_tokenizer(path)
        tables = [asdict(table) | {"rows": table.rows, "width": table.width} for table in checkpoint.matrices]
        result["tables"] = [table | {"padding": table["rows"] - len(tokenizer.vocabulary)} for table in tables]
    else:
        tokenizer = read_tokenizer(path)
    result["tokenizer"] = describe_tokenizer(tokenizer)
    return result
