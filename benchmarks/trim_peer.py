"""What lm-vocab-trimmer (PyPI vocabtrimmer) 0.0.2 makes of a model. `trim.py` runs this in an environment that has it.

    python trim_peer.py MODEL KEPT.json OUT

KEPT.json maps the tokens to keep to their ids. They take the place of what the package would count on a corpus from a
hub. This prints one JSON object: whether the package can be imported, whether the trim ran, and its seconds.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(model: str, kept: Path, out: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        import vocabtrimmer  # noqa: F401
    except Exception as error:  # any failure is the finding
        found["import"] = f"{type(error).__name__}: {str(error).split(' (')[0]}"  # without the path of the package
        import huggingface_hub

        # The package uses this class only to push to a hub, so a stand-in lets the trim run.
        huggingface_hub.Repository = object
    for name in [name for name in sys.modules if name.startswith("vocabtrimmer")]:
        del sys.modules[name]
    begin = time.perf_counter()
    try:
        from vocabtrimmer import base_trimmer

        tokens = json.loads(kept.read_text("utf-8"))
        base_trimmer.vocab_miner = lambda **options: tokens
        base_trimmer.VocabTrimmer(model).trim_vocab("de", out)
    except Exception as error:  # any failure is the finding
        found["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    found["seconds"] = round(time.perf_counter() - begin, 2)
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])))
