"""The command line as the shell calls it, in this process."""

from __future__ import annotations

import sys
from typing import NamedTuple

from cbtools import cli


class Done(NamedTuple):
    """What a call left: its exit code, and what it printed."""

    code: int
    out: str
    err: str


def called(tokens: list[str], monkeypatch, capsys) -> Done:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr(sys, "argv", ["cbtools", *tokens])
    code = 0
    try:
        cli.main()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    return Done(code, *capsys.readouterr())
