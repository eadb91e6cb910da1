"""What is free goes back to the system, once enough has been read."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from pathlib import Path

import pytest

from cbtools.run import memory

glibc = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "malloc_trim")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not glibc, reason="the C library here is not glibc")
def test_it_is_given_back_after_so_many_bytes(monkeypatch):
    monkeypatch.setattr(memory, "_read", 0)
    blocks = [bytes(4_000) for _ in range(30_000)]  # of the heap, where the last ones keep those before
    kept = blocks[::1_000]
    del blocks
    gc.collect()
    full = resident()
    memory.give_back_memory(memory._EVERY - 1)
    assert resident() > full - 30_000_000
    memory.give_back_memory(1)
    assert resident() < full - 60_000_000
    assert all(len(block) == 4_000 for block in kept)
    memory.give_back_memory(1)
    assert memory._read == 1
