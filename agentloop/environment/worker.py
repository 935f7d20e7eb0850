"""A thread that one environment instance lives in.

Many environments are bound to the thread that made them (SQLite, browsers, Java bridges), so all calls of an instance
run in one thread, in order. The thread is a daemon: one that hangs in a user's code can be abandoned and does not keep
the process from ending, which the threads of `concurrent.futures` would.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call returned, or what it raised (kept as a value: a `StopIteration` cannot cross a future)."""

    value: Any = None
    error: BaseException | None = None


class InstanceThread:
    """Runs calls one after another in a thread of its own until `stop`."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Outcome], Callable[..., Any], tuple[Any, ...]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Future[Outcome]:
        """Queue a call; the future never holds an exception."""
        future: Future[Outcome] = Future()
        self._calls.put((future, function, arguments))
        return future

    def stop(self) -> None:
        """End the thread after the calls that are queued; returns at once."""
        self._calls.put(None)

    def join(self, seconds: float) -> None:
        """Wait for the thread to end, at most so long."""
        self._thread.join(seconds)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            future, function, arguments = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                outcome = Outcome(function(*arguments))
            except BaseException as error:
                outcome = Outcome(error=error)
            future.set_result(outcome)
            del future, function, arguments, outcome, item
