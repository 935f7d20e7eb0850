"""Runs one command in a process group of its own and ends the whole group when the parent is gone, however the parent died.

Run by file (`python watchdog.py COMMAND ...`), standard library only, so that any interpreter starts it in a few milliseconds. The
parent holds the write end of this process' standard input and never writes: end of file there means that the parent has closed it or
was killed, SIGKILL included. The exit status is the command's. A server that outlives the run which started it would keep its memory
and its port.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 5.0
"""How long the group may take to leave after SIGTERM, before SIGKILL."""

PR_SET_PDEATHSIG = 1


def _die_with_watchdog() -> None:
    """In the child, before exec: be killed when this watchdog is killed (Linux only; elsewhere the pipe alone must do)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _others_in_group() -> list[int]:
    """Processes of this group other than this one, zombies left out; read from /proc."""
    group, own, others = os.getpgrp(), os.getpid(), []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != own:
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat") as stat:
                # The fields after the command's closing bracket: state, parent, process group.
                state, _, pgrp = stat.read().rpartition(")")[2].split()[:3]
                if int(pgrp) == group and state != "Z":
                    others.append(int(entry))
    return others


def _end_others(grace: float) -> None:
    """SIGTERM to all others of the group, SIGKILL after `grace` seconds."""
    if not os.path.isdir("/proc/self"):
        os.killpg(0, signal.SIGKILL)
    sent = signal.SIGTERM
    deadline = time.monotonic() + grace
    told: set[int] = set()
    while others := _others_in_group():
        if time.monotonic() > deadline and sent != signal.SIGKILL:
            sent, told = signal.SIGKILL, set()
        for pid in set(others) - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
        told |= set(others)
        time.sleep(0.05)


def _watch_parent() -> None:
    while os.read(0, 4096):
        pass
    _end_others(GRACE_SECONDS)
    os._exit(1)


def main(command: list[str]) -> int:
    """Run `command` until it ends or the parent does; returns its exit status (128 + signal if a signal ended it)."""
    if os.getpgrp() != os.getpid():
        os.setpgrp()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_watchdog)
    threading.Thread(target=_watch_parent, daemon=True).start()
    status = child.wait()
    # Whoever is left of a command that has ended has nobody to work for: no grace, so that it can be started again at once.
    _end_others(0.0)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
