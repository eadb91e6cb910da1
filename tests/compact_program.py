"""A program that does things to datasets, and is killed before one of its changes of the file system.

It has imported all it needs, and forks for each order, a line of its input: so to be killed costs little. A
line of its output tells how that was.

`Killable` starts it: ``killable.run("compact_dataset(root)", root, before=3)``.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from job_program import Change, Changes, Json

from cbtools.dataset import compact_dataset, write_dataset
from cbtools.dataset.finished import remove_parts

PATIENCE = 60
NAMES = {
    "compact_dataset": compact_dataset,
    "write_dataset": write_dataset,
    "remove_parts": remove_parts,
    "pl": pl,
}


@dataclass(frozen=True)
class Ended:
    """How it ended: the signal that killed it (0: none), its error, and the changes until then."""

    signal: int
    error: str = ""
    trace: str = ""
    changes: tuple[Change, ...] = ()


class Killable:
    """The program, running."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, statement: str, root: Path, *, before: int | str = 0, do: str = "kill", limit: int | None = None
    ) -> Ended:
        """Run a statement, that knows the dataset as ``root``.

        Before the n-th change (from 1 on; 0: never), or the first that a pattern fits, it is killed, or its
        disk is ``full`` or ``read-only`` from there on; `limit` is the size to which files may grow.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"statement": statement, "root": str(root), "before": before, "do": do, "limit": limit}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        return Ended(told["signal"], told["error"], told["trace"], tuple(map(tuple, told["changes"])))

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


def _do(order: Json) -> Json:
    """Do it, in a process that was forked for it."""
    changes, written = Changes(), pq.ParquetWriter.write_table

    def write_table(self: Any, *arguments: Any, **named: Any) -> None:
        changes._change("write", self.where)  # what Arrow does itself is not audited
        written(self, *arguments, **named)

    pq.ParquetWriter.write_table = write_table
    if order["limit"] is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], resource.RLIM_INFINITY))
    told: Json = {"error": "", "trace": ""}
    changes.watch([order["root"]], order["before"], order["do"])
    try:
        exec(order["statement"], {**NAMES, "root": Path(order["root"])})
    except Exception as error:
        told = {"error": type(error).__name__, "trace": traceback.format_exc()}
    finally:
        changes.rest()
    return told | {"changes": changes.seen}


def main() -> None:
    """Fork for each line of the input."""
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with os.fdopen(writing, "w") as pipe:
                json.dump(_do(json.loads(line)), pipe)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        told = json.loads(answer) if answer else {"error": "", "trace": "", "changes": []}
        print(json.dumps(told | {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0}), flush=True)


if __name__ == "__main__":
    main()
