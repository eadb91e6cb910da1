"""How the tests run: repeatable by default, more of them with ``--full``."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# for the processes that tests and notebooks start, too
os.environ["MPLBACKEND"] = "Agg"

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


@pytest.fixture(scope="session")
def full() -> bool:
    """Tell a `slow` test whether to do the full number."""
    return bool(os.environ.get("CBTOOLS_FULL"))
