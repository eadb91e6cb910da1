"""The tiers of the tests, and the order in which several processes run them.

pyproject.toml defines the marks. The closest of ``ci`` and ``slow``, of a parameter, a test or its file, says
whether a test is for ``--ci``. So are the notebooks of odd numbers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

LEAST, UNRECORDED = 0.5, 0.1
"""Seconds: tests that take less than LEAST are not recorded, and count as UNRECORDED."""
ROOT = Path(__file__).parent
NOTEBOOKS = ROOT / "notebooks"
DURATIONS = ROOT / "tests" / "durations.json"

# for the processes that tests and notebooks start, too
os.environ["MPLBACKEND"] = "Agg"
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes: each would compile all sources
os.environ["CBTOOLS_QUIET"] = "1"  # a first run compiles the kernels, whose notice no notebook has

# jsonschema, which nbformat imports, would import this module, which builds 38 parsers: 4 of the 7 s that
# each process of pytest took to start. It checks IRIs; notebooks have none. nbval is loaded after this.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
pytest_plugins = ["nbval.plugin"]

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("full", deadline=None)

every_item = pytest.StashKey[list[pytest.Item]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--ci", action="store_true", help="run all tests, also those with the mark ci")
    parser.addoption(
        "--full",
        action="store_true",
        help="as --ci, with the full number of every test marked more, on new random examples",
    )
    parser.addoption(
        "--record-durations", action="store_true", help=f"write the measured times to tests/{DURATIONS.name}"
    )


def pytest_configure(config: pytest.Config) -> None:
    # in the environment, since modules of tests read it before any fixture runs (tests/tiers.py)
    tier = "full" if config.getoption("--full") else "ci" if config.getoption("--ci") else ""
    if tier:
        os.environ["CBTOOLS_TIER"] = tier
    tier = os.environ.get("CBTOOLS_TIER", "")
    if tier not in ("", "ci", "full"):
        raise pytest.UsageError(f"CBTOOLS_TIER is {tier!r}: unset it; pytest --ci or --full sets it")
    settings.load_profile("full" if tier == "full" else "repeatable")
    # the sample and most recordings of tests have gaps on purpose; tests of warnings ask for them
    config.addinivalue_line("filterwarnings", "ignore::cbtools.CbtoolsWarning")
    config.option.nbval_sanitize_with = str(NOTEBOOKS / "nbval.cfg")  # pytest may be called in any folder
    if config.getoption("--record-durations") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(), "durations")


def pytest_report_header() -> str:
    tier = os.environ.get("CBTOOLS_TIER", "")
    return f"tier: {tier or 'default; pytest --ci runs every test'}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List what took longer than a second and has no mark; nothing fails by the clock."""
    reports = [report for report in terminalreporter.stats.get("passed", []) if report.when == "call"]
    long = [r for r in reports if r.duration > 1 and not {"ci", "slow"} & {*r.keywords}]
    if long:
        terminalreporter.section("longer than a second, and marked neither ci nor slow")
        for report in sorted(long, key=lambda report: -report.duration):
            terminalreporter.write_line(f"{report.duration:.1f} s  {report.nodeid}")


# --- which tests run, and in which order


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of higher tiers, and order the files for several processes: the longest first."""
    config.stash[every_item] = list(items)
    for item in items:
        if item.path.suffix == ".ipynb":  # test_jupyter.py runs number 01 by default
            number = item.path.name[:2]
            item.add_marker("ci" if number.isdigit() and int(number) % 2 else "slow")
    if not os.environ.get("CBTOOLS_TIER"):
        named = paths_named(config)
        left_out = {item for item in items if is_for_ci(item) and item.path not in named}
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    if hasattr(config, "workerinput"):
        seconds, files = durations(), Counter[str]()
        for item in items:
            files[file_of(item.nodeid)] += seconds.get(item.nodeid, UNRECORDED)
        items.sort(key=lambda item: -files[file_of(item.nodeid)])


def is_for_ci(item: pytest.Item) -> bool:
    """Return whether ``ci`` is closer than ``slow``, of the marks of a parameter, a test and its file."""
    marks = [mark.name for node in reversed(item.listchain()) for mark in reversed(node.own_markers)]
    return next((name for name in marks if name in ("ci", "slow")), "") == "ci"


def paths_named(config: pytest.Config) -> set[Path]:
    """Return the files that the command line names: no test of them is left out. ``notebooks`` names all."""
    folder = config.invocation_params.dir
    paths = {Path(os.path.normpath(folder / argument.split("::")[0])) for argument in config.args}
    if paths <= {NOTEBOOKS, *NOTEBOOKS.iterdir()}:
        paths |= set(NOTEBOOKS.glob("*.ipynb"))
    return paths


def file_of(nodeid: str) -> str:
    return nodeid.split("::")[0]


def durations() -> dict[str, float]:
    """Return the seconds of each test that took `LEAST` or longer when they were last recorded."""
    return json.loads(DURATIONS.read_text(encoding="utf-8")) if DURATIONS.exists() else {}


@pytest.fixture(scope="session")
def recorded_durations() -> dict[str, float]:
    return durations()


@pytest.fixture(scope="session")
def collected(request: pytest.FixtureRequest) -> list[pytest.Item]:
    """Return all tests that were collected, also those that the tier leaves out."""
    return request.config.stash[every_item]


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Compile the kernels of a fresh checkout in two processes, before those of the tests need them.

    Otherwise each process of the tests compiles them all: 25 to 50 s of CPU, measured.
    """
    config = session.config
    several = not hasattr(config, "workerinput") and len(getattr(config.option, "tx", None) or ()) > 1
    cache = ROOT / "cbtools" / "_kernels" / "__pycache__"
    cached = any(cache.glob(f"*.py{sys.version_info.major}{sys.version_info.minor}.nbi"))
    if several and not cached and not config.option.collectonly:
        print("compiling the kernels of a fresh checkout: up to half a minute, once", flush=True)
        program = ROOT / "tests" / "warm_up.py"
        started = [subprocess.Popen([sys.executable, program, part]) for part in ("books", "features")]
        for process in started:
            process.wait()


class LongestFirst(LoadScopeScheduling):
    """Hand out whole files, in the order collected: a file's fixtures are set up once.

    A notebook's cells share a kernel in any case. With ``--full`` a file may take hours, so its tests are
    handed out one by one.

    Measured on two cores: handed out one by one in the order of the files, tests set up each fixture of a
    module twice, and the processes waited for a third of the time.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._one_by_one = os.environ.get("CBTOOLS_TIER") == "full"
        config.option.loadscopereorder = False  # it orders by the number of tests

    def _split_scope(self, nodeid: str) -> str:
        file = file_of(nodeid)
        return nodeid if self._one_by_one and not file.endswith(".ipynb") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LongestFirst:
    return LongestFirst(config, log)


class Recorder:
    """Write the measured seconds of each test that ran to `DURATIONS`; those of the others stay."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.seconds[report.nodeid] = round(report.duration, 1)

    def pytest_sessionfinish(self) -> None:
        kept = durations() | self.seconds
        long = {nodeid: kept[nodeid] for nodeid in sorted(kept) if kept[nodeid] >= LEAST}
        DURATIONS.write_text(json.dumps(long, indent=0) + "\n", encoding="utf-8")
