"""Kernels interpreted by Python, which checks every index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def run(file: str, *arguments: str) -> None:
    """Run a file of tests as a program with its kernels interpreted, and check that it exits with 0."""
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, file, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
