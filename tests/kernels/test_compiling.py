"""Who waits for the compiler is told so: once, at a terminal, and not by workers."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

LINE = "cbtools: compiling kernels (once)"
KERNEL = """
import numpy as np
from cbtools._kernels.clocks import lay

def compile():
    i = np.zeros(0, np.int64)
    lay(i, i, i, i, i, 1, i, i, i, i)
"""
HERE = KERNEL + "compile()"
WORKER = f"""{KERNEL}
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        pool.submit(compile).result()
"""


def at_a_terminal(program, cache, **environment):
    """Run a program whose stderr is a terminal; what is told there."""
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            [sys.executable, program],
            stderr=theirs,
            check=True,
            env={**os.environ, "NUMBA_CACHE_DIR": str(cache), "CBTOOLS_QUIET": "", **environment},
        )
        os.write(theirs, b"\n.")  # so that there is something to read
        os.set_blocking(ours, False)
        return os.read(ours, 100_000).decode()
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(HERE)
    return path


@pytest.mark.ci
@pytest.mark.skipif(os.name == "nt", reason="there are no such terminals")
def test_it_is_told_once_and_not_when_the_kernels_are_in_the_cache(program, tmp_path):
    assert at_a_terminal(program, tmp_path / "cache").count(LINE) == 1
    assert LINE not in at_a_terminal(program, tmp_path / "cache")


@pytest.mark.ci
@pytest.mark.skipif(os.name == "nt", reason="there are no such terminals")
def test_it_is_not_told_where_quiet_is_asked_for_nor_by_workers(program, tmp_path):
    assert LINE not in at_a_terminal(program, tmp_path / "quiet", CBTOOLS_QUIET="1")
    program.write_text(WORKER)
    assert LINE not in at_a_terminal(program, tmp_path / "worker")


@pytest.mark.ci
def test_a_program_whose_output_is_kept_is_told_nothing(program, tmp_path):
    done = subprocess.run(
        [sys.executable, program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "CBTOOLS_QUIET": ""},
    )
    assert done.stderr == ""
