"""Artifacts appear by an atomic rename, or not at all.

Whatever a stage writes goes to a partial path beside its final one, is flushed to disk, and is then renamed. A kill at any instant leaves
either the
whole artifact or a partial that the next run removes; never half of one under its final name.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agentloop.errors import RunFailed

PARTIAL = ".partial"


@contextmanager
def new_artifact(final: Path) -> Iterator[Path]:
    """Yield a partial path to write a file or folder at; on a clean exit it is flushed and takes the place of `final`.

    A partial that an earlier, killed run left is removed first; if the block raises, the partial is removed and `final` stays as it was.

    Raises:
        RunFailed: The disk is full. Everything that was finished before is untouched.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(final.name + PARTIAL)
    remove(partial)
    try:
        yield partial
        _flush(partial)
        _replace(partial, final)
    except OSError as error:
        remove(partial)
        if means_full(error):
            raise disk_full(final) from error
        raise
    except BaseException:
        remove(partial)
        raise


def write_text(final: Path, text: str) -> None:
    """Write a small text file atomically. Raises `RunFailed` if the disk is full."""
    with new_artifact(final) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(final: Path, value: Any) -> None:
    """Write JSON atomically, sorted and indented so that two files compare by eye. Raises `RunFailed` if the disk is full."""
    write_text(final, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def means_full(error: BaseException) -> bool:
    """Whether an error says that the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def disk_full(path: Path) -> RunFailed:
    """The error for a full disk, naming where it was and what to do."""
    folder = path if path.is_dir() else path.parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**20
    return RunFailed(
        f"no space left on the disk while writing {path} ({free:.0f} MiB free there); everything finished before is kept: "
        "free some space and run the same command again"
    )


def remove(path: Path) -> None:
    """Remove a file or a folder with all in it; nothing if it is not there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _replace(partial: Path, final: Path) -> None:
    # A folder cannot be renamed over another that is not empty, so an old one steps aside first. It is older work of the same stage, made
    # again because its end was never journalled, so losing it in between costs nothing.
    if final.is_dir() and not final.is_symlink():
        remove(final)
    os.replace(partial, final)
    flush_folder(final.parent)


def _flush(path: Path) -> None:
    if path.is_dir():
        for folder, _, names in os.walk(path):
            for name in names:
                _flush_file(Path(folder) / name)
            flush_folder(Path(folder))
    else:
        _flush_file(path)


def _flush_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_folder(path: Path) -> None:
    """Make the names in a folder durable. Some systems cannot open a folder; there the rename is as durable as it gets."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
