"""How much a program may use, and what came of a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Protection = Literal["files", "network", "processes", "system_calls", "memory"]
"""What a program is kept from, by its effect.

- files: it sees the libraries of Python, which it cannot write, and a scratch folder in memory; nothing else of the file system is there.
- network: no address can be reached and none bound, on this machine or another.
- processes: it sees no other process, can signal none, and all that it starts ends with it.
- system_calls: what a program that computes does not need is refused by the kernel: programs, processes, sockets, tracing, mounts.
- memory: its address space is bounded.
"""

PROTECTIONS: tuple[Protection, ...] = get_args(Protection)

Ending = Literal["finished", "raised", "time", "cpu", "died", "protocol"]
"""How a call ended: it ran to its end; it raised; it took too long on the clock, or of the processor; its process ended; or what came back
was not an answer. After the last four the process is gone, and with it the variables."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a program.

    Attributes:
        seconds: On the clock, for one call.
        cpu_seconds: Of the processor, for one call.
        session_cpu_seconds: Of the processor, for all calls of a session. The kernel kills beyond it, whatever becomes of signals.
        memory: Bytes of address space, Python and the libraries that are loaded already included (200 MiB with sympy).
        scratch: Bytes of the scratch folder.
        threads: Of the program; other processes there are none.
        output: Characters of what a call prints that are kept.
        code: Characters that a program may have.
    """

    seconds: float = 10.0
    cpu_seconds: int = 5
    session_cpu_seconds: int = 60
    memory: int = 1024 * 2**20
    scratch: int = 32 * 2**20
    threads: int = 16
    output: int = 4_000
    code: int = 50_000

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} of a sandbox is more than 0, found {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Output:
    """What came of a call.

    Attributes:
        text: What it printed, the value of a last line that is an expression, and the end of a traceback; or why there is none.
        ending: How it ended.
        seconds: On the clock, as seen from outside.
    """

    text: str
    ending: Ending
    seconds: float

    @property
    def finished(self) -> bool:
        """Whether the program ran to its end."""
        return self.ending == "finished"
