"""Checkpoints of a training that is under way, so that one that was killed goes on where it was.

A checkpoint counts only once every process has written its part. A mark that is written last says so, so that a half-written one is never
gone on from. Importing this module imports no torch; `checkpointed_trainer` writes what is found here.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

FOLDER = "trainer"
"""Where in the work folder of a training its checkpoints lie."""

MARK = "whole"

KEPT = 2
"""Checkpoints that are kept: the older one holds until the newer one is marked."""


def mark(folder: Path) -> None:
    """Say that a checkpoint is whole, once its files are on the disk."""
    for path in sorted(folder.iterdir()):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    with (folder / MARK).open("w") as file:
        os.fsync(file.fileno())


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint in a trainer's folder; None where there is none."""
    whole = [path for path in folder.glob("checkpoint-*") if (path / MARK).is_file()]
    return max(whole, key=step_of, default=None)


def remove_halves(folder: Path) -> None:
    """Remove what a kill left of checkpoints that were being written."""
    for path in folder.glob("checkpoint-*"):
        if not (path / MARK).is_file():
            shutil.rmtree(path)


def step_of(checkpoint: Path | None) -> int:
    """The optimiser step after which a checkpoint was made; 0 of none."""
    return 0 if checkpoint is None else int(checkpoint.name.rpartition("-")[2])
