"""The cache of models: folders that appear whole or not at all, made by one process while others wait.

`AGENTLOOP_CACHE` overrides where it is; otherwise it is the user's cache folder of the platform (`~/.cache/agentloop` on Linux).
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import filelock
import platformdirs

from agentloop.errors import WaitedTooLong

LOCK_TIMEOUT = 900.0
"""Seconds to wait for another process that is making the same folder (a download on a slow line takes minutes)."""


def cache_dir() -> Path:
    """The folder that holds everything that can be made again; not created by asking."""
    override = os.environ.get("AGENTLOOP_CACHE")
    return Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("agentloop"))


def cached_folder(name: str) -> Path:
    """Where the cache keeps the folder `name`, whether or not it is there."""
    return cache_dir() / "models" / name


def make_once(name: str, make: Callable[[Path], None], *, timeout: float = LOCK_TIMEOUT) -> Path:
    """Return the cached folder `name`; if it is not there, let `make` fill an empty folder and rename that into place.

    Several processes may ask at once: one makes it, the others wait up to `timeout` seconds and then find it.

    Raises:
        WaitedTooLong: Another process held the lock for longer than `timeout`.
    """
    target = cached_folder(name)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    lock_path = target.parent / f".{name}.lock"
    try:
        with filelock.FileLock(lock_path, timeout=timeout):
            if not target.is_dir():
                _make(target, make)
    except filelock.Timeout:
        raise WaitedTooLong(f"another process to make {target}", timeout, hint=f"if none is running, delete {lock_path}") from None
    return target


def _make(target: Path, make: Callable[[Path], None]) -> None:
    for leftover in target.parent.glob(f".{target.name}.making-*"):  # of a process that was killed; the lock is ours now
        shutil.rmtree(leftover, ignore_errors=True)
    making = Path(tempfile.mkdtemp(prefix=f".{target.name}.making-", dir=target.parent))
    try:
        make(making)
        making.chmod(0o755)
        making.rename(target)
    finally:
        shutil.rmtree(making, ignore_errors=True)
