"""Tiers of the tests: what runs by default, and that what took long when it was recorded is marked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiers

ROOT = Path(__file__).parents[1]
KINDS = {
    "crash": "tests/run/test_job_crash.py::test_killed_before_the_source_is_deleted",
    "worker": "tests/run/test_job_parallel.py::test_two_processes",
    "cluster": "tests/run/test_job_cluster.py::test_the_rows_are_those_of_one_worker",
    "store": "tests/stores/test_roots.py::test_a_dataset_has_the_same_rows_in_the_same_places",
    "JupyterLab": "tests/test_jupyter.py::test_a_notebook_runs_in_jupyterlab_and_shows_what_is_committed",
}
"""Most tests that start processes or servers are for --ci; by default one runs of each of these kinds."""


def marks(item: pytest.Item) -> set[str]:
    return {mark.name for mark in item.iter_markers()}


@pytest.fixture
def whole_suite(request: pytest.FixtureRequest) -> None:
    config = request.config
    named = [Path(config.invocation_params.dir, argument).resolve() for argument in config.args]
    left_out = config.option.lf or config.option.ignore or config.option.ignore_glob
    if tiers.FULL or left_out or sorted(named) != sorted(ROOT / path for path in config.getini("testpaths")):
        pytest.skip("only a run of the whole suite, with its usual parameters, collects every test")


def test_what_takes_longer_than_a_second_is_marked(collected, recorded_durations):
    unmarked = [
        f"{item.nodeid}: {recorded_durations[item.nodeid]} s"
        for item in collected
        if recorded_durations.get(item.nodeid, 0) > 1 and not {"ci", "slow"} & marks(item)
    ]
    assert not unmarked, "\n".join(["mark these ci or slow, as pyproject.toml explains them:", *unmarked])


@pytest.mark.usefixtures("whole_suite")
def test_only_tests_that_exist_have_a_recorded_duration(collected, recorded_durations):
    files = {item.nodeid.split("::")[0] for item in collected}
    gone = recorded_durations.keys() - {item.nodeid for item in collected}
    gone = {nodeid for nodeid in gone if nodeid.split("::")[0] in files}
    assert not gone, "\n".join(["remove these lines from tests/durations.json:", *sorted(gone)])


@pytest.mark.usefixtures("whole_suite")
@pytest.mark.parametrize("kind", KINDS)
def test_by_default_one_test_of_each_kind_runs(collected, kind):
    assert any("slow" in marks(item) for item in collected if item.nodeid.split("[")[0] == KINDS[kind])


@pytest.mark.ci
def test_notebooks_pass_on_their_own_and_leave_nothing_behind():
    """In several processes: a notebook's cells must meet in one."""
    notebooks = [
        ROOT / "notebooks" / name for name in ("02_raw_to_tables.ipynb", "06_partitioned_data.ipynb")
    ]
    before = sorted((ROOT / "notebooks").iterdir())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", *map(str, notebooks)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert sorted((ROOT / "notebooks").iterdir()) == before
