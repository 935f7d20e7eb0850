"""Whether two answers are the same by algebra, asked of processes of their own, from any thread and from inside an event loop.

math-verify guards itself by a signal, which works in the main thread only and not against a C function that does not return. So it runs in
`agentloop.evaluation.algebra_worker`, a few processes that are started when first needed, used again, killed when they do not answer and
gone when this process ends. An answer that hangs them, kills them or fills their memory is not the reference.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
from typing import Any

from agentloop.errors import Mistake, RunFailed, WaitedTooLong

WORKERS = 2
"""Most processes; a comparison takes about a millisecond, so two keep up with any sampler."""

START_TIMEOUT = 180.0
"""Seconds that a process may take to import math-verify: two on a quiet machine, and a cold disk makes that a minute."""

PATIENCE = 12.0
"""How many times the limit of processor time may pass on the clock before a process is killed: it may have to share its processor."""


class NoAnswer(Exception):
    """A process that died, or did not answer."""


class _Worker:
    """One process, for one question at a time."""

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, [*sys.path]))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "agentloop.evaluation.algebra_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"},
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="algebra answers", daemon=True)  # a pipe has no time-out on Windows
        self._reader.start()
        try:
            self._next_line(START_TIMEOUT)
        except NoAnswer as error:
            self.kill()
            if self._process.returncode:
                raise RunFailed(
                    f"the process that compares mathematical answers does not start (exit code {self._process.returncode})"
                ) from error
            raise WaitedTooLong("the process that compares mathematical answers to start", START_TIMEOUT) from error

    def ask(self, answer: str, reference: str, seconds: float) -> bool | None:
        """What the process says. Raises `NoAnswer`; the process is of no use any more then."""
        question = json.dumps({"answer": answer, "reference": reference, "seconds": seconds})
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise NoAnswer("its pipe is closed") from error
        same: bool | None = self._next_line(PATIENCE * seconds)["same"]
        return same

    def kill(self) -> None:
        """End it now, and let go of its pipes."""
        self._process.kill()
        self._process.wait()
        self._reader.join(5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass  # what was never read cannot be flushed

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")  # it ended

    def _next_line(self, seconds: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise NoAnswer(f"no answer within {seconds:g} s") from None
        if not line:
            self._process.wait(10)
            raise NoAnswer("it ended")
        found: dict[str, Any] = json.loads(line)
        return found


class _Workers:
    """At most `WORKERS` processes, shared by all threads of this process."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._free = threading.Semaphore(WORKERS)
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()

    def mine(self) -> bool:
        """Whether this process made it; after a fork the pipes belong to another."""
        return self._owner == os.getpid()

    def ask(self, answer: str, reference: str, seconds: float) -> bool | None:
        """Ask a process that is free, or a new one. Raises `NoAnswer`, `RunFailed`."""
        with self._free:
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            worker = worker or _Worker()
            try:
                same = worker.ask(answer, reference, seconds)
            except BaseException:
                worker.kill()
                raise
            with self._lock:
                self._idle.append(worker)
            return same

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for worker in idle:
            worker.kill()


_workers: _Workers | None = None
_making = threading.Lock()


def same_by_algebra(answer: str, reference: str, seconds: float) -> bool | None:
    """Whether math-verify takes `answer` for `reference`, both LaTeX without dollars; None if it took more than `seconds` of processor
    time, or died of it.

    Raises:
        Mistake: math-verify is not installed.
        RunFailed: No process can be started.
    """
    global _workers
    if importlib.util.find_spec("math_verify") is None:
        raise Mistake("comparing mathematical answers needs the module math_verify; install it with: pip install 'agentloop[math]'")
    with _making:
        if _workers is None or not _workers.mine():
            _workers = _Workers()
            atexit.register(_workers.close)
    try:
        return _workers.ask(answer, reference, seconds)
    except NoAnswer:
        return None


def close() -> None:
    """End the processes that are idle now; they are started again when needed."""
    if _workers is not None and _workers.mine():
        _workers.close()
