"""The program that sessions are born from: `python -I -c "... nursery.main(SOCKET)"`, a process that runs nothing of a model's itself.

It imports what programs often need once (`preload`), so that a session is a fork of some milliseconds. Asked over its socket with a
description and three pipes, it forks

    launcher   enters the namespaces, waits for the end of the session or of its owner (the lifeline), and then ends all
      init     the first process of the new process namespace, whose end is the end of all others there; sets the clock for each call
        worker the confined process that runs programs (`worker.py`)

Every one is killed with the one above it. A session says first, on its reply pipe, `{"missing": {PROTECTION: REASON}}`; where something is
missing that its owner does not do without, the session ends before any program ran.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from agentloop.environment.sandbox import confinement, worker
from agentloop.environment.sandbox.limits import Limits, Protection

LARGEST_DESCRIPTION = 4096


def main(control: int) -> None:
    """Serve until the socket closes."""
    for name in sys.argv[1:]:
        if importlib.util.find_spec(name) is not None:
            importlib.import_module(name)
    if sys.platform == "linux":
        for name in ("linux", "filter"):  # what is loaded later has to be here now: the sandbox has no file of ours
            importlib.import_module(f"agentloop.environment.sandbox.{name}")
        if importlib.util.find_spec("pyseccomp") is not None:
            try:
                importlib.import_module("pyseccomp")
            except RuntimeError:
                pass  # libseccomp is missing; the session tells
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # sessions that ended need nobody to ask how
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the owner, who ends sessions in order
    with socket.socket(fileno=control) as channel:
        while True:
            message, pipes, _, _ = socket.recv_fds(channel, LARGEST_DESCRIPTION, 3)
            if not message:
                return
            if os.fork() == 0:
                channel.close()
                _launch(json.loads(message), *pipes)
            for pipe in pipes:
                os.close(pipe)


def _launch(described: dict[str, Any], requests: int, replies: int, lifeline: int) -> NoReturn:
    """The launcher."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        missing = confinement.enter_namespaces()
        init = os.fork()
        if init == 0:
            os.close(lifeline)
            _init(described, requests, replies, missing)
        os.close(requests)
        os.close(replies)
        _await_end(init, lifeline)
    finally:
        os._exit(0)


def _await_end(init: int, lifeline: int) -> None:
    """Wait until the owner lets go or init ends; then nothing of the session is left."""
    watched = select.poll()
    watched.register(lifeline, select.POLLIN)  # a byte, or its end
    if hasattr(os, "pidfd_open"):
        watched.register(os.pidfd_open(init), select.POLLIN)
        watched.poll()
    else:
        while not watched.poll(50) and os.waitpid(init, os.WNOHANG) == (0, 0):
            pass
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        os.kill(init, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os.killpg(0, signal.SIGKILL)  # without a process namespace: the group; this process is one of it


def _init(described: dict[str, Any], requests: int, replies: int, missing: confinement.Missing) -> NoReturn:
    """The first process of the session."""
    try:
        limits = Limits(**described["limits"])
        if sys.platform == "linux":
            from agentloop.environment.sandbox import linux

            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        nobody = sys.platform == "linux" and confinement.becomes_nobody()
        if "files" not in missing:
            try:
                confinement.change_root(limits.scratch, nobody)
            except (OSError, KeyError) as error:
                missing["files"] = f"the file system cannot be left ({error})"
        if "files" in missing:
            os.chdir(described["folder"])
            if nobody:
                os.chown(".", confinement.NOBODY, confinement.NOBODY)
        if sys.platform == "linux":
            confinement.give_up_privileges(nobody)
            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of user clears it
        inner, outer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(requests)
            os.close(outer)
            _work(described, limits, inner, replies, missing)
        os.close(inner)
        _relay(child, limits, requests, outer, replies)
    except BaseException as error:
        _say(replies, {"failed": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)


def _work(described: dict[str, Any], limits: Limits, requests: int, replies: int, missing: confinement.Missing) -> NoReturn:
    """The worker."""
    try:
        if sys.platform == "linux":
            from agentloop.environment.sandbox import linux

            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        worker.prepare()
        missing |= confinement.bound_resources(limits)
        filtered = confinement.filter_system_calls()
        missing |= filtered
        if not filtered:  # it guards these too
            for guarded in ("network", "processes"):
                missing.pop(guarded, None)
        refused: dict[Protection, str] = {name: reason for name, reason in missing.items() if name not in described["unprotected"]}
        _say(replies, {"missing": missing, "refused": refused})
        if not refused:
            worker.work(requests, replies, limits)
    except BaseException as error:
        _say(replies, {"failed": f"{type(error).__name__}: {error}"})
    finally:
        os._exit(0)


def _relay(child: int, limits: Limits, requests: int, outer: int, replies: int) -> None:
    """Hand each request to the worker with the processor time that it has for it; tell how the worker ended."""
    os.set_blocking(outer, False)
    watched = select.poll()
    watched.register(requests, select.POLLIN)
    patience = None  # milliseconds; where the end of a process cannot be polled for, it is asked for
    if hasattr(os, "pidfd_open"):
        watched.register(os.pidfd_open(child), select.POLLIN)
    else:
        patience = 50
    waiting = b""
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        for descriptor, _ in watched.poll(patience):
            if descriptor == requests:
                received = os.read(requests, 65536)
                if not received:
                    return  # the owner is done
                if not waiting:
                    _start_clock(child, limits)
                waiting += received
                watched.register(outer, select.POLLOUT)
            elif descriptor == outer:
                try:
                    waiting = waiting[os.write(outer, waiting) :]
                except BrokenPipeError:
                    waiting = b""  # it closed its end, and will be ended by the clock
                if not waiting:
                    watched.unregister(outer)
    status = os.waitstatus_to_exitcode(ended[1])
    _say(replies, {"died": signal.Signals(-status).name if status < 0 else f"exit code {status}"})


def _start_clock(child: int, limits: Limits) -> None:
    """Give the worker `cpu_seconds` from now on; rounded up, as the kernel counts whole seconds."""
    if not hasattr(resource, "prlimit"):
        return  # macOS: the session's limit only
    used = time.clock_gettime((~child << 3) | 2)  # the clock of another process, as clock_getcpuclockid(3) makes it
    hard = resource.prlimit(child, resource.RLIMIT_CPU)[1]
    soft = int(used + limits.cpu_seconds) + 1
    resource.prlimit(child, resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _say(replies: int, message: dict[str, Any]) -> None:
    os.set_blocking(replies, False)  # whoever fills the pipe is not waited for
    try:
        os.write(replies, json.dumps(message).encode() + b"\n")
    except OSError:
        pass
    os.set_blocking(replies, True)
