"""Runs Python that a model wrote, in a process that can do no harm, with variables that stay from call to call."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import select
import shutil
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from agentloop.environment.sandbox import birth
from agentloop.environment.sandbox.limits import PROTECTIONS, Ending, Limits, Output, Protection
from agentloop.errors import Mistake, RunFailed, WaitedTooLong, nearest

START_TIMEOUT = 120.0
"""Seconds until a session is there; the first waits for Python and the preloaded modules, which on a cold disk takes long."""

END_TIMEOUT = 10.0
"""Seconds in which all of a session is gone after it was ended."""

_LOST = "the variables of earlier programs are lost"


class NoReply(Exception):
    """There was no answer to a request; `ending` says why, `reason` in words."""

    def __init__(self, ending: Ending, reason: str) -> None:
        super().__init__(reason)
        self.ending, self.reason = ending, reason


class Sandbox:
    """Python for one episode at a time.

        with Sandbox() as python:
            python.run("x = 6 * 7").text   # ""
            python.run("x").text           # "42"
            python.restart()               # the next episode: no variable and no file is left

    A session is started by the first `run` after a `restart`, in some milliseconds. Not for several threads at once.
    """

    def __init__(self, limits: Limits | None = None, *, preload: Sequence[str] = (), unprotected: Sequence[Protection] = ()) -> None:
        """Say what programs may use.

        Args:
            limits: Bounds of a program; the defaults suit computations of a few seconds.
            preload: Modules that are imported before, where they are installed; programs still write `import`, which then takes no time.
            unprotected: Protections that may be missing on this machine. What is there is used all the same.

        Raises:
            Mistake: `unprotected` names no protection. (Whether a protection is missing shows when the first program runs.)
        """
        for name in unprotected:
            if name not in PROTECTIONS:
                expected = f"one of {', '.join(PROTECTIONS)}"
                raise Mistake("there is no such protection", found=name, expected=expected, nearest=nearest(name, PROTECTIONS))
        self.limits = limits or Limits()
        self.missing: dict[Protection, str] = {}
        """What the last session went without, with the reason."""
        self._preload = tuple(preload)
        self._unprotected = tuple(unprotected)
        self._session: _Session | None = None

    def check(self) -> None:
        """Start a session where there is none: tells at once whether this machine can. Raises `Mistake` and `RunFailed`, as `run` does."""
        self._started()

    def _started(self) -> _Session:
        if os.name == "nt":
            raise Mistake("a sandbox needs Linux, or macOS, which has few of its protections; on Windows use WSL")
        if self._session is None:
            self._session = _Session(self.limits, self._preload, self._unprotected)
            self.missing = self._session.missing
        return self._session

    def run(self, code: str) -> Output:
        """Run a program, and tell what it printed. Nothing that the program does raises.

        Raises:
            Mistake: A protection is missing on this machine, which `unprotected` does not allow.
            RunFailed: No process can be started.
        """
        if len(code) > self.limits.code:
            return Output(f"error: the program has {len(code)} characters, {self.limits.code} are allowed", "raised", 0.0)
        started = time.monotonic()
        session = self._started()
        try:
            text, raised = session.ask(code)
        except NoReply as error:
            self.restart()
            return Output(f"error: {error.reason}; {_LOST}", error.ending, time.monotonic() - started)
        except BaseException:
            self.restart()
            raise
        return Output(text, "raised" if raised else "finished", time.monotonic() - started)

    def restart(self) -> None:
        """End the session, and all that it started; the next program begins with nothing."""
        session, self._session = self._session, None
        if session is not None:
            session.end()

    close = restart

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Session:
    """One process, its variables, and the pipes to it."""

    def __init__(self, limits: Limits, preload: tuple[str, ...], unprotected: tuple[Protection, ...]) -> None:
        self._limits = limits
        self._folder = tempfile.mkdtemp(prefix="agentloop-sandbox-") if "files" in unprotected else ""
        described = {
            "limits": {name: getattr(limits, name) for name in Limits.__slots__},
            "unprotected": unprotected,
            "folder": self._folder or "/",
        }
        try:
            self._requests, self._replies, self._lifeline = birth.born(described, preload)
        except BaseException:
            self._remove_folder()
            raise
        os.set_blocking(self._requests, False)
        os.set_blocking(self._replies, False)
        self._received = b""
        try:
            self.missing = self._first_words()
        except BaseException:
            self.end()
            raise

    def _first_words(self) -> dict[Protection, str]:
        """What is missing, once the session is there. Raises `Mistake` and `RunFailed`."""
        try:
            said = self._next_message(time.monotonic() + START_TIMEOUT)
        except NoReply as error:
            if error.ending == "time":
                raise WaitedTooLong("a sandbox to start", START_TIMEOUT) from error
            raise RunFailed(f"a sandbox does not start: {error.reason}") from error
        if "failed" in said:
            raise RunFailed(f"a sandbox does not start: {said['failed']}")
        refused: dict[str, str] = said["refused"]
        if refused:
            raise Mistake(
                "this machine cannot keep a model's programs from "
                + "; from ".join(f"{_KEPT_FROM[name]} ({name}: {reason})" for name, reason in refused.items())
                + f"; to run them all the same, allow it: unprotected: [{', '.join(refused)}]"
            )
        missing: dict[Protection, str] = said["missing"]
        return missing

    def ask(self, code: str) -> tuple[str, bool]:
        """What a program printed, and whether it raised. Raises `NoReply`; the session is of no use any more then."""
        deadline = time.monotonic() + self._limits.seconds
        token = secrets.token_hex(8)
        self._send(json.dumps({"id": token, "code": code}).encode() + b"\n", deadline)
        said = self._next_message(deadline)
        if "died" in said:
            raise NoReply(*_how_it_died(said["died"], self._limits))
        text, raised = said.get("text"), said.get("raised")
        if said.get("id") != token or not isinstance(text, str) or not isinstance(raised, bool) or len(text) > 2 * self._most():
            raise NoReply("protocol", "the program wrote among the answers of its sandbox")
        return text.encode("utf-8", "replace").decode(), raised  # half a surrogate pair is no text

    def _most(self) -> int:
        """Characters that an honest answer has at most: the output, an error and a note."""
        return self._limits.output + 2_500

    def _send(self, message: bytes, deadline: float) -> None:
        while message:
            self._wait(self._requests, select.POLLOUT, deadline)
            try:
                message = message[os.write(self._requests, message) :]
            except BlockingIOError:
                pass
            except BrokenPipeError:
                raise NoReply("died", "the process of the sandbox is gone") from None

    def _next_message(self, deadline: float) -> dict[str, Any]:
        """The next line, which nobody vouches for, as a JSON object. Raises `NoReply`."""
        while b"\n" not in self._received:
            self._wait(self._replies, select.POLLIN, deadline)
            with contextlib.suppress(BlockingIOError):
                part = os.read(self._replies, 65536)
                if not part:
                    raise NoReply("died", "the process of the sandbox ended")
                self._received += part
            if len(self._received) > 12 * self._most() + 4096:  # six bytes for each character, if all are escaped
                raise NoReply("protocol", "the program wrote among the answers of its sandbox")
        line, _, self._received = self._received.partition(b"\n")
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise NoReply("protocol", "the program wrote among the answers of its sandbox")
        return said

    def _wait(self, descriptor: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(descriptor, event)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise NoReply("time", f"the program took longer than {self._limits.seconds:g} s and was ended")

    def end(self) -> None:
        """Kill all of it, and wait until it is gone: until nobody is left who could write an answer."""
        with contextlib.suppress(OSError):
            os.write(self._lifeline, b"x")
        os.close(self._lifeline)
        os.close(self._requests)
        deadline = time.monotonic() + END_TIMEOUT
        with contextlib.suppress(NoReply):
            while True:
                self._wait(self._replies, select.POLLIN, deadline)
                with contextlib.suppress(BlockingIOError):
                    if not os.read(self._replies, 65536):
                        break
        os.close(self._replies)
        self._remove_folder()

    def _remove_folder(self) -> None:
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)


_KEPT_FROM: dict[str, str] = {
    "files": "reading and writing files",
    "network": "the network",
    "processes": "other processes",
    "system_calls": "system calls that they do not need",
    "memory": "filling the memory",
}


def _how_it_died(how: object, limits: Limits) -> tuple[Ending, str]:
    if how == "SIGXCPU":
        return "cpu", f"the program used more than {limits.cpu_seconds} s of processor time and was ended"
    return "died", f"the process ended ({how:.40})" if isinstance(how, str) else "the process ended"
