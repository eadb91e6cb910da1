"""How the tests run: repeatable by default, more of them with ``--full``."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

# for the processes that tests and notebooks start, too
os.environ["MPLBACKEND"] = "Agg"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes: each would compile all sources
os.environ["CBTOOLS_QUIET"] = "1"  # a first run compiles the kernels, whose notice no notebook has

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("full", deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full",
        action="store_true",
        help="run the full number of every test that has a smaller usual one, on new random examples",
    )


def pytest_configure(config: pytest.Config) -> None:
    # in the environment, since modules of tests read it before any fixture runs
    if config.getoption("--full"):
        os.environ["CBTOOLS_FULL"] = "1"
    settings.load_profile("full" if os.environ.get("CBTOOLS_FULL") else "repeatable")


class OneByOne(LoadScopeScheduling):
    """With ``-n``: a test to whichever process is free; a notebook's cells share a kernel, and so a process.

    (As ``--dist loadgroup`` would with a mark, were it not without effect in pytest 9.2 with xdist 3.8.)
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return file if file.endswith(".ipynb") else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneByOne:
    return OneByOne(config, log)


@pytest.fixture(scope="session")
def full() -> bool:
    """Tell a `slow` test whether to do the full number."""
    return bool(os.environ.get("CBTOOLS_FULL"))


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call the command line as the shell does, in this process."""
    from command_line import called  # not for tests that need none of it

    return lambda *tokens: called([*map(str, tokens)], monkeypatch, capsys)
