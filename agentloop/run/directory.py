"""The directory of a run: where everything is, and that only one process works in it.

Layout (see docs/architecture.md)::

    RUN/recipe.yaml          as resolved, with defaults
    RUN/journal.jsonl        append-only; the one truth about progress
    RUN/metrics.jsonl        measurements, one a line, derived from the journal
    RUN/iterations/000/      trees/ID.parquet  rows/ID.parquet  adapters/ROLE  evaluation/ID.json
    RUN/logs/                of the engine and the trainers
    RUN/report.html
    RUN/trees/               pages of single trees, as `agentloop show RUN --tree ID` writes them
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from agentloop.errors import Mistake
from agentloop.run.artifact import write_text
from agentloop.run.journal import Journal


class RunDirectory:
    """Paths of one run, and its journal.

    Attributes:
        path: The directory, absolute.
        journal: Opened with the directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.path.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(self.path / "journal.jsonl")

    @property
    def recipe(self) -> Path:
        """The recipe as it was resolved when the run began."""
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        """One measurement a line."""
        return self.path / "metrics.jsonl"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    def tree_page(self, tree: str) -> Path:
        """The page of the tree of that id, if somebody asked for it."""
        name = re.sub(r"[^\w.-]+", "-", tree)[:120]
        return self.path / "trees" / f"{name}.html"

    @property
    def logs(self) -> Path:
        """Logs of the engine and the trainers."""
        return self.path / "logs"

    def artifact(self, iteration: str, type: str, name: str) -> Path:
        """Where the artifact `name` of that type and iteration lies.

        Args:
            iteration: "000", "001", … or "final".
            type: "trees", "rows", "adapter" or "measurement".
            name: Id of the stage, or the role for an adapter.
        """
        folder = self.path / "iterations" / iteration
        return {
            "trees": folder / "trees" / f"{name}.parquet",
            "rows": folder / "rows" / f"{name}.parquet",
            "adapter": folder / "adapters" / name,
            "measurement": folder / "evaluation" / f"{name}.json",
        }[type]

    def relative(self, path: Path) -> str:
        """`path` as the journal names it."""
        return path.resolve().relative_to(self.path).as_posix()

    def write_metrics(self) -> None:
        """Write `metrics.jsonl` anew from the journal, so that a measurement is there once whatever was killed when."""
        lines = [json.dumps(measurement, sort_keys=True) for entry in self.journal.finished_entries() for measurement in entry.measurements]
        write_text(self.metrics, "".join(line + "\n" for line in lines))

    def read_metrics(self) -> list[dict[str, Any]]:
        """All measurements of the finished stages, in order."""
        return [dict(measurement) for entry in self.journal.finished_entries() for measurement in entry.measurements]


@contextmanager
def locked(path: Path) -> Iterator[RunDirectory]:
    """Open a run's directory for writing; the operating system drops the lock if the process dies.

    Raises:
        Mistake: Another process works in it, or it holds something that is not a run.
    """
    if path.exists() and not path.is_dir():
        raise Mistake("the run's directory is a file", file=str(path), expected="a directory that is new, empty or a run")
    if path.is_dir() and any(path.iterdir()) and not any((path / name).exists() for name in ("journal.jsonl", ".lock", "recipe.yaml")):
        raise Mistake("the directory holds something else", file=str(path), expected="a directory that is new, empty or a run")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Mistake(f"the run's directory cannot be made ({error.strerror})", file=str(path)) from error
    lock = FileLock(path / ".lock")
    owner = path / ".owner"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        pid = owner.read_text().strip() if owner.exists() else "unknown"
        raise Mistake(
            f"another process (pid {pid}) is working in this run",
            file=str(path),
            expected="one process a run; wait for it, or use another --out",
        ) from None
    try:
        owner.write_text(f"{os.getpid()}\n")
        yield RunDirectory(path)
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
