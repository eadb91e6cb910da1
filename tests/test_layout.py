"""One way through the house: a file imports only what stands above it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _package(name: str, *files: str) -> list[str]:
    return [f"{name}/{file}" for file in files]


# The table of contents, in the order of the data flow. A package's __init__ hands its names out, and so
# stands below them; that of the kernels holds their policy.
ORDER = [
    *("errors", "spans", "schema", "lazy", "stores", "durable", "lock"),
    *_package(
        "_kernels",
        "__init__",
        "decode",
        "frames",
        "book",
        "levels",
        "flow",
        "windows",
        "quotes",
        "clocks",
        "bars",
        "toxicity",
        "level_flow",
        "labels",
    ),
    *_package(
        "raw",
        "parts",
        "zstd",
        "compressed",
        "files",
        "sequence",
        "values",
        "formats",
        "rows",
        "advanced",
        "exchange",
        "decode",
        "header",
        "tracking",
        "delays",
        "report",
        "columns",
        "piece",
        "counts",
        "markers",
        "stream",
        "scan",
        "__init__",
    ),
    *_package(
        "dataset",
        "hive",
        "order",
        "parquet",
        "split",
        "draft",
        "written",
        "compacted",
        "finished",
        "scan",
        "query",
        "write",
        "listing",
        "compact",
        "migrate",
        "repartition",
        "report",
        "__init__",
    ),
    *_package(
        "plot",
        *("canvas", "columns", "instant", "touch", "sides", "heat", "bars", "line", "day", "matrix"),
        *("recording", "__init__"),
    ),
    *_package(
        "book",
        "ladder",
        "messages",
        "runs",
        "rebuilder",
        "report",
        "effect",
        "state",
        "states",
        "top",
        "rebuild",
        "recorded",
        "search",
        "instant",
        "tickers",
        "__init__",
    ),
    *_package(
        "features",
        *("catalogue", "clock", "links", "view", "windows", "stage", "define"),
        *("touch", "depth", "flow", "volatility", "clocks", "trades", "quotes", "trades_at", "impact"),
        *("open_bars", "bars", "toxicity", "level_flow", "integrated", "labels", "regression"),
        *("listing", "add", "__init__"),
    ),
    *_package(
        "run",
        *("features", "config", "quarantine", "coverage", "draft", "doubts", "report", "states", "segment"),
        *("folders", "order", "manifest", "known", "options", "job_report"),
        *("pool", "flight", "exactly_once", "job", "watch", "status", "__init__"),
    ),
    *_package(
        "etl",
        *("counts", "readers", "connections", "database", "processors", "channels", "parsers", "writers"),
        *("config", "pipelines", "days", "jobs", "__init__"),
    ),
    *_package("export", "gaps", "events", "hftbacktest", "tardis", "lobster", "views", "__init__"),
    *_package("_simulate", "draws", "book", "products", "market", "wire", "exchange", "recorder", "__init__"),
    *("simulate", "samples"),
    "__init__",  # below it, what uses the package as everybody does
    *("commands", "cli", "__main__"),
]

MOST_LINES = 400
LEEWAY = 20
LONGER = {
    "_kernels/decode": "numba's cache sees no edits in other files: a kernel calls those of its own alone",
}

FILES = sorted((ROOT / "cbtools").rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "cbtools").with_suffix("").as_posix()


def imported(path: Path) -> set[str]:
    """Give the files of the package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {target(alias.name) for alias in node.names if alias.name.split(".")[0] == "cbtools"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}, line {node.lineno}: name the package in full"
            if node.module and node.module.split(".")[0] == "cbtools":
                found |= {target(node.module, alias.name) for alias in node.names}
    return found


def target(module: str, name: str = "") -> str:
    """Tell in which file an import ends: a module's, or a package's __init__."""
    parts = [*module.split("."), name][1:]
    while parts:
        path = ROOT.joinpath("cbtools", *parts)
        if parts[-1] and path.with_suffix(".py").is_file():
            return "/".join(parts)
        if parts[-1] and path.is_dir():
            return "/".join([*parts, "__init__"])
        parts.pop()
    return "__init__"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_what_stands_above_it(path):
    name = name_of(path)
    if name not in ORDER:
        beside = [entry for entry in ORDER if entry.rpartition("/")[0] == name.rpartition("/")[0]]
        pytest.fail(
            f"cbtools/{name}.py has no place: put it into ORDER of {Path(__file__).name}, below what it "
            f"imports ({', '.join(sorted(imported(path))) or 'nothing'}) and above what imports it; "
            f"beside it stand {', '.join(beside) or 'none yet'}"
        )
    below = imported(path) - set(ORDER[: ORDER.index(name)])
    assert not below, f"{name} imports {', '.join(sorted(below))}, which does not stand above it"


def test_each_place_is_of_one_file():
    assert sorted(set(ORDER) - {name_of(path) for path in FILES}) == []
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize("path", sorted((ROOT / "cbtools/_kernels").glob("*.py")), ids=name_of)
def test_a_kernel_knows_the_jit_policy_alone(path):
    assert imported(path) <= {"_kernels/__init__"} - {name_of(path)}


@pytest.mark.parametrize("path", sorted((ROOT / "cbtools/_simulate").glob("*.py")), ids=name_of)
def test_the_simulator_knows_nothing_of_the_reader(path):
    assert {name for name in imported(path) if not name.startswith("_simulate/")} <= {"errors"}


def test_the_package_imports_fast():
    """What takes long to import is imported where it is first needed."""
    code = "import sys, cbtools; print(*{'numba', 'matplotlib', 'pandas'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_is_a_room(path):
    name, n = name_of(path), len(path.read_text(encoding="utf-8").splitlines())
    if name in LONGER:
        assert n > MOST_LINES, f"{name} is short again ({n} lines): take it out of LONGER"
    else:
        assert n <= MOST_LINES + LEEWAY, (
            f"{name}: {n} lines; divide it, or say in LONGER why it is one subject"
        )
