"""Command lines in tests: run here, and read what they print."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from tokswap.cli import main


def run(*args: object, status: int = 0) -> Result:
    """Run a command line in this process."""
    result = CliRunner().invoke(main, [str(arg) for arg in args], prog_name="tokswap")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return result


def one_document(text: str) -> Any:
    """Read the one JSON document that a command has printed."""
    value, end = json.JSONDecoder().raw_decode(text)
    assert not text[end:].strip()
    return value
