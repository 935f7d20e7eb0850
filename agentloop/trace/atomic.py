"""Files that appear whole or not at all, and a full disk as a message."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentloop.errors import RunFailed


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` (`.NAME.PID.tmp`) that takes its place, synced, if the block ends well, and else goes."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns a full disk, met while `path` is written, into `RunFailed`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunFailed(f"no space left on the disk for {path}; what was finished is kept: free some space and run it again") from error
        raise


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
