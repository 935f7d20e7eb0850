"""The owner's side of `nursery.py`: one such process for each set of preloaded modules, shared by all sandboxes of this process."""

from __future__ import annotations

import array
import atexit
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import agentloop
from agentloop.errors import RunFailed

_PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from agentloop.environment.sandbox import nursery
sys.path.remove({root!r})
nursery.main({control})
"""

_ENVIRONMENT = {
    "HOME": "/scratch",
    "LANG": "C.UTF-8",
    "PYTHONUTF8": "1",
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",  # where pyseccomp's search for libraries finds ldconfig
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""All that a program sees of the environment: nothing of ours, where keys and tokens are."""


class _Nursery:
    """One process that sessions are forked from."""

    def __init__(self, preload: Sequence[str]) -> None:
        ours, theirs = socket.socketpair()
        root = str(Path(agentloop.__file__).resolve().parent.parent)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-X", "utf8", "-c", _PROGRAM.format(root=root, control=theirs.fileno()), *preload],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        self._socket = ours
        self.owner = os.getpid()

    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, description: dict[str, Any], pipes: Sequence[int]) -> None:
        """Ask for a session. Raises `OSError` where the process is gone."""
        message = json.dumps(description).encode()
        self._socket.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", pipes))])

    def close(self) -> None:
        self._socket.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


_nurseries: dict[tuple[str, ...], _Nursery] = {}
_lock = threading.Lock()


def born(description: dict[str, Any], preload: tuple[str, ...]) -> tuple[int, int, int]:
    """File descriptors of a new session: to write requests, to read replies, and whose closing ends it. Raises `RunFailed`."""
    requests, to_send = os.pipe()
    to_read, replies = os.pipe()
    lifeline, to_hold = os.pipe()
    try:
        with _lock:  # two messages must not mix, and a process is made once
            for attempt in (1, 2):
                nursery = _nurseries.get(preload)
                if nursery is None or nursery.owner != os.getpid() or not nursery.alive():
                    if nursery is None and not _nurseries:
                        atexit.register(close)
                    nursery = _nurseries[preload] = _Nursery(preload)
                try:
                    nursery.send(description, (requests, replies, lifeline))
                    break
                except OSError as error:
                    nursery.close()
                    del _nurseries[preload]
                    if attempt == 2:
                        raise RunFailed(f"the process that sandboxes are started from ends at once ({error})") from error
    except BaseException:
        for descriptor in (to_send, to_read, to_hold):
            os.close(descriptor)
        raise
    finally:
        for descriptor in (requests, replies, lifeline):
            os.close(descriptor)
    return to_send, to_read, to_hold


def close() -> None:
    """End the processes that sandboxes are started from; they are started again when needed."""
    with _lock:
        for nursery in _nurseries.values():
            if nursery.owner == os.getpid():
                nursery.close()
        _nurseries.clear()
