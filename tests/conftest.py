"""Fixtures of all tests."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command line as the shell does, in this process."""
    from command_line import called  # not for tests that need none of it

    return lambda *tokens: called([*map(str, tokens)], monkeypatch, capsys)
