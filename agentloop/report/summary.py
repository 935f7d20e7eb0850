"""What there is to report of a run, read from its journal alone; the drawing is in `html` and `terminal`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Entry, Output


@dataclass(frozen=True, slots=True)
class Point:
    """One measured value with its 95 % interval.

    Attributes:
        iteration: "000", "001", … or "final".
        stage: Id of the stage that measured.
        adapter: Versioned name, or "base".
        n: Episodes.
    """

    iteration: str
    stage: str
    split: str
    adapter: str
    name: str
    value: float
    low: float | None
    high: float | None
    n: int

    @property
    def label(self) -> str:
        """What stands on the axis: "base", or the iteration whose adapter it is."""
        if self.adapter == "base":
            return "base"
        return f"iteration {int(self.iteration) + 1}" if self.iteration.isdigit() else self.iteration

    @property
    def interval(self) -> str:
        """The interval in percent, or a dash where a single task cannot give one."""
        return "–" if self.low is None or self.high is None else f"{100 * self.low:.1f} – {100 * self.high:.1f} %"


@dataclass(frozen=True, slots=True)
class StageLine:
    """One finished or failed stage, for the table of stages."""

    stage: str
    event: str
    seconds: float
    made: str
    tokens: dict[str, int]
    note: str


@dataclass(frozen=True, slots=True)
class VerdictLine:
    """What one judging stage said, for the table of verdicts.

    Attributes:
        labels: How many verdicts have each label, those that are numbers and the unparsable ones left out.
        unparsable: Verdicts without a value.
        mean: Mean of the values; None if there is none.
        adapter: Who judged.
    """

    stage: str
    critic: str
    adapter: str
    verdicts: int
    labels: dict[str, int]
    unparsable: int
    mean: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Everything of a run that a report shows, but for the example trajectories.

    Attributes:
        points: Every measurement, in order of time.
        stages: Every stage that finished or failed last, in order of time.
        verdicts: What critics said, by stage.
        seconds: Wall-clock seconds by kind of work (sample, build, train, evaluate, gate, start of the engine …).
        tokens: Tokens by kind, over the run.
        failures: Failures by kind, over the run.
        state: "finished", "failed: …", "interrupted" or "running".
    """

    name: str
    model: str
    environment: str
    points: tuple[Point, ...]
    stages: tuple[StageLine, ...]
    verdicts: tuple[VerdictLine, ...]
    seconds: dict[str, float]
    tokens: dict[str, int]
    failures: dict[str, int]
    state: str
    about: dict[str, Any]

    def of(self, name: str) -> tuple[Point, ...]:
        """The measurements of that name."""
        return tuple(point for point in self.points if point.name == name)


def summarise(directory: RunDirectory) -> Summary:
    """Read a run's journal into what the reports draw."""
    entries = directory.journal.entries
    about: dict[str, Any] = {}
    seconds: defaultdict[str, float] = defaultdict(float)
    tokens: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    points: list[Point] = []
    latest: dict[str, Entry] = {}
    deleted: set[str] = set()
    for entry in entries:
        if entry.event == "run":
            about |= entry.about
        elif entry.event in ("finished", "failed"):
            latest[entry.stage] = entry
        elif entry.event == "deleted":
            deleted.add(str(entry.about["path"]))
    for entry in latest.values():
        kind = str(entry.about.get("kind", "other"))
        waits = {str(name): float(value) for name, value in entry.about.get("waits", {}).items()}
        seconds[kind] += max(0.0, entry.seconds - sum(waits.values()))
        for name, value in waits.items():
            seconds[name] += value
        tokens.update(entry.tokens)
        failures.update(entry.failures)
        points += [_point(measurement) for measurement in entry.measurements]
    return Summary(
        name=str(about.get("name", directory.path.name)),
        model=str(about.get("model", "")),
        environment=str(about.get("environment", "")),
        points=tuple(points),
        stages=tuple(_line(entry, deleted) for entry in latest.values()),
        verdicts=tuple(_verdicts(entry) for entry in latest.values() if "verdicts" in entry.about),
        seconds=dict(seconds),
        tokens=dict(tokens),
        failures=dict(failures),
        state=_state(entries),
        about=about,
    )


def _point(measurement: dict[str, Any]) -> Point:
    return Point(
        iteration=str(measurement["iteration"]),
        stage=str(measurement["stage"]),
        split=str(measurement.get("split", "")),
        adapter=str(measurement.get("adapter", "")),
        name=str(measurement["name"]),
        value=float(measurement["value"]),
        low=measurement["low"],
        high=measurement["high"],
        n=int(measurement["n"]),
    )


def _line(entry: Entry, deleted: Collection[str]) -> StageLine:
    made = ", ".join(_made(output) + (", deleted since" if output.path in deleted else "") for output in entry.outputs.values())
    note = entry.message or str(entry.about.get("note", ""))
    return StageLine(entry.stage, entry.event, entry.seconds, made, dict(entry.tokens), note)


def _made(output: Output) -> str:
    """The artifact in words; trees and rows are plurals already."""
    if not output.count:
        return output.type
    return f"{output.count:,} {output.type}{'s' if output.type in ('measurement', 'adapter') and output.count > 1 else ''}"


def _verdicts(entry: Entry) -> VerdictLine:
    said = entry.about["verdicts"]
    return VerdictLine(
        stage=entry.stage,
        critic=str(said["critic"]),
        adapter=str(entry.about.get("adapter", "")),
        verdicts=int(said["verdicts"]),
        labels={str(label): int(count) for label, count in said["labels"].items()},
        unparsable=int(said["unparsable"]),
        mean=said["mean"],
    )


def _state(entries: list[Entry]) -> str:
    for entry in reversed(entries):
        if entry.event == "run":
            return str(entry.about.get("state", "running"))
        if entry.event == "failed":
            return f"failed: {entry.message}"
        if entry.event == "interrupted":
            return "interrupted"
    return "running"
