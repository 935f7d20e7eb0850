"""How far sampling is: the numbers, and two ways of showing them (a live line in a terminal, a line now and then in a log).

`Progress` is only numbers, changed by the sampler; a `Display` draws them and decides itself how often. Drawing never changes sampling.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self, TextIO


@dataclass
class Progress:
    """The numbers of one stage while it runs.

    Attributes:
        name: What runs, for example "trees" or "test base".
        total: Episodes in all (of a search: trees; so below).
        resumed: Episodes that an earlier attempt of the run had finished.
        finished: Episodes finished now.
        succeeded: Of those finished now, the successful ones.
        failures: Failed episodes by kind.
        retried: Attempts that failed and were played again, by kind of failure.
        turns: Turns played now.
        generated: Tokens generated now.
        prompt: Prompt tokens sent now.
        cached: Of these, taken from the engine's prefix cache.
        unit: What is counted: "episodes" or "trees".
        simulations: Simulations of trees that have ended.
        broken: Candidates of a search that broke, without their tree's failing.
        clock: Seconds from any origin.
        started: What `clock` said at the start.
    """

    name: str
    total: int
    resumed: int = 0
    finished: int = 0
    succeeded: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    retried: Counter[str] = field(default_factory=Counter)
    turns: int = 0
    generated: int = 0
    prompt: int = 0
    cached: int = 0
    unit: str = "episodes"
    simulations: int = 0
    broken: int = 0
    clock: Callable[[], float] = time.monotonic
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.clock()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return self.clock() - self.started

    @property
    def done(self) -> int:
        """Episodes that need not be played any more, failed ones included."""
        return self.resumed + self.finished + self.failures.total()

    @property
    def success(self) -> float | None:
        """Share of successful ones among the episodes finished now; None before the first."""
        return self.succeeded / self.finished if self.finished else None

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens a second since the start."""
        return self.generated / self.seconds if self.seconds > 0 else 0.0

    def line(self) -> str:
        """All of it in one line."""
        parts = [f"{self.name}: {self.done}/{self.total} {self.unit}"]
        if self.resumed:
            parts.append(f"{self.resumed} of them before")
        if self.success is not None:
            parts.append(f"success {self.success:.0%}")
        if self.simulations:
            parts.append(f"{self.simulations} simulations")
        parts.append(f"{self.tokens_per_second:.0f} tokens/s")
        if self.failures:
            parts.append("failed " + by_kind(self.failures))
        if self.broken:
            parts.append(f"{self.broken} candidates broke")
        if self.retried:
            parts.append("retried " + by_kind(self.retried))
        parts.append(_clock_time(self.seconds))
        return " · ".join(parts)


class Shown(Protocol):
    """Numbers of a stage that can be told in a line: `Progress`, or those of a judge."""

    @property
    def total(self) -> int:
        """What there is to do."""
        ...

    @property
    def done(self) -> int:
        """What need not be done any more."""
        ...

    def line(self) -> str:
        """All of it in one line."""
        ...


class Display(Protocol):
    """Shows a stage's progress, from entering it to leaving it."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None: ...

    def update(self, progress: Shown) -> None:
        """The numbers have changed."""
        ...


class Quiet:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        return None

    def update(self, progress: Shown) -> None:
        return None


class LogLines(Quiet):
    """A line every `every` seconds and one at the end, for output that is not a terminal."""

    def __init__(self, stream: TextIO | None = None, *, every: float = 15.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._every = every
        self._clock = clock
        self._last = clock()
        self._unsaid: Shown | None = None

    def update(self, progress: Shown) -> None:
        self._unsaid = progress
        if self._clock() - self._last >= self._every or progress.done == progress.total:
            self._say()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._say()

    def _say(self) -> None:
        if self._unsaid is not None:
            print(self._unsaid.line(), file=self._stream or sys.stderr, flush=True)
            self._unsaid = None
            self._last = self._clock()


class LiveLine(Quiet):
    """One line that is drawn again in place, for a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text

        self._text = Text
        self._live = Live(console=Console(file=stream or sys.stderr), refresh_per_second=4)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        self._live.stop()

    def update(self, progress: Shown) -> None:
        self._live.update(self._text(progress.line(), overflow="ellipsis", no_wrap=True))


def display(stream: TextIO | None = None, *, quiet: bool = False) -> Display:
    """The display that suits `stream` (default: standard error): live in a terminal, lines in a log, nothing if `quiet`."""
    if quiet:
        return Quiet()
    target = stream or sys.stderr
    return LiveLine(target) if target.isatty() else LogLines(target)


def by_kind(counts: Counter[str]) -> str:
    """Counts in a line, the most frequent kind first: "engine.crash 2, environment.timeout 1"."""
    return ", ".join(f"{kind} {count}" for kind, count in counts.most_common())


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
