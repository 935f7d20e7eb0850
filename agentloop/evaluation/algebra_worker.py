r"""The program that tells whether two answers are the same by algebra: math-verify, in a process that may be killed.

It reads a line `{"answer": ..., "reference": ..., "seconds": ...}` from standard input, answers it with a line `{"same": ...}` and ends
with its input. The limit is on processor time, so that a verdict does not depend on what else the machine does: a signal ends what Python
computes, and where that is inside a C function (`9^{9^{9}}`) the kernel ends the process. Memory is bounded too.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import warnings
from types import FrameType
from typing import Any

MEMORY = 3 * 2**30
"""Bytes of address space that an answer may need."""

GRACE = 2
"""Seconds of processor time between the signal and the end of the process."""


class OutOfTime(BaseException):
    """The limit was reached. Not an `Exception`, so that nobody on the way catches it."""


def main() -> None:
    """Answer one line after another."""
    out, sys.stdout = sys.stdout, sys.stderr  # what a library prints must not end up among the answers
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    from math_verify import parse, verify

    _bound_memory()
    parse("$1$", parsing_timeout=None)  # what is loaded late is loaded now
    out.write('{"ready": true}\n')
    out.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        out.write(json.dumps({"same": _same(parse, verify, asked["answer"], asked["reference"], float(asked["seconds"]))}) + "\n")
        out.flush()


def _same(parse: Any, verify: Any, answer: str, reference: str, seconds: float) -> bool | None:
    """Whether they are the same; what cannot be read is not. None if there was not time enough."""
    try:
        _start_clock(seconds)
        given, known = (parse(f"${text}$", parsing_timeout=None) for text in (answer, reference))
        return bool(verify(known, given, allow_set_relation_comp=True, timeout_seconds=None))
    except OutOfTime:
        return None
    except Exception:
        return False
    finally:
        _stop_clock()


def _start_clock(seconds: float) -> None:
    if not hasattr(signal, "setitimer"):  # Windows: whoever waits kills this process instead
        return
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    end = int(usage.ru_utime + usage.ru_stime + seconds + GRACE) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (end if hard == resource.RLIM_INFINITY else min(end, hard), hard))
    signal.signal(signal.SIGPROF, _out_of_time)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.2)  # again and again, since a library may swallow it


def _stop_clock() -> None:
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, 0)


def _out_of_time(number: int, frame: FrameType | None) -> None:
    raise OutOfTime


def _bound_memory() -> None:
    try:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard), hard))
    except (ImportError, ValueError, OSError):
        pass  # macOS and Windows have no such limit


if __name__ == "__main__":
    main()
