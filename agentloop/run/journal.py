"""The journal: one append-only file from which everything about a run's progress follows.

A line is one event of one stage: started, finished or failed, or that something which it had made was deleted. A stage is finished when,
and only when, its "finished" line is whole on disk; that line carries the outputs with their content hashes, the measurements and the
token counts, so that nothing else has to be consistent with anything. A line torn by a kill is passed over when the journal is read, and
the stage runs again.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agentloop.errors import RunFailed
from agentloop.run.artifact import disk_full

Event = Literal["run", "started", "finished", "failed", "interrupted", "deleted"]


@dataclass(frozen=True, slots=True)
class Output:
    """One artifact that a stage made.

    Attributes:
        type: "trees", "rows", "adapter", "measurement", "tasks" or "store".
        path: Relative to the run directory.
        content_hash: Canonical hash of the content, independent of timings and layout.
        count: How many trees, rows or measurements it holds.
        about: What else later stages and reports need (JSON values), for example an adapter's versioned name.
    """

    type: str
    path: str
    content_hash: str
    count: int = 0
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the journal.

    Attributes:
        event: What happened.
        stage: Key of the stage, "ITERATION/ID", for example "002/trees"; "" for the run itself.
        fingerprint: Hash of the stage's settings and of its inputs' hashes; a finished stage is used again only under the same one.
        outputs: By artifact id.
        measurements: What the stage measured, one mapping a measurement, as in `metrics.jsonl`.
        tokens: Token counts of the stage by kind (prompt, cached, generated, judged, trained).
        failures: Failures by kind.
        message: Cause of a failure.
        about: What the stage decided or noticed (JSON values), for example the gate's decision.
        seconds: Wall-clock seconds of the stage.
        time: Unix time of the event.
    """

    event: Event
    stage: str
    fingerprint: str = ""
    outputs: dict[str, Output] = field(default_factory=dict)
    measurements: tuple[dict[str, Any], ...] = ()
    tokens: dict[str, int] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    message: str = ""
    about: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    time: float = field(default_factory=time.time)

    def to_json(self) -> str:
        """The entry as one line without its newline; empty fields are left out."""
        value = {name: getattr(self, name) for name in self.__slots__}
        value["outputs"] = {name: {key: getattr(output, key) for key in output.__slots__} for name, output in self.outputs.items()}
        value["measurements"] = list(self.measurements)
        filled = {key: item for key, item in value.items() if key in ("event", "stage") or item not in ("", {}, [])}
        return json.dumps(filled, sort_keys=True, ensure_ascii=False)

    @staticmethod
    def from_json(line: str) -> Entry:
        """Read a line back. Raises `ValueError` or `TypeError` when it is not an entry."""
        value: Mapping[str, Any] = json.loads(line)
        fields = dict(value)
        fields["outputs"] = {name: Output(**output) for name, output in value.get("outputs", {}).items()}
        fields["measurements"] = tuple(value.get("measurements", ()))
        return Entry(**fields)


class Journal:
    """Append-only journal of one run, opened by the one process that holds the run's lock.

    Attributes:
        entries: All whole entries, in order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self._finished: dict[str, Entry] = {}
        self._size = 0
        self._read()

    def _read(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.decode("utf-8").splitlines(), 1):
            try:
                self._remember(Entry.from_json(line))
            except (ValueError, TypeError) as error:
                raise RunFailed(
                    f"{self.path}:{number}: not a journal entry ({error}); the file was changed by something other than agentloop"
                ) from error
        self._size = len(whole)

    def append(self, entry: Entry) -> None:
        """Write one entry durably: it is on disk when this returns. Raises `RunFailed` if the disk is full."""
        data = (entry.to_json() + "\n").encode("utf-8")
        try:
            with self.path.open("ab") as file:
                # A line that a kill tore is cut off here and not when reading: who only reads may do so while somebody else writes.
                file.truncate(self._size)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(self.path) from error
            raise
        self._size += len(data)
        self._remember(entry)

    def finished(self, stage: str) -> Entry | None:
        """The stage's "finished" entry, or None."""
        return self._finished.get(stage)

    def finished_entries(self) -> Iterator[Entry]:
        """The "finished" entries in order of time, one a stage."""
        return iter(self._finished.values())

    def _remember(self, entry: Entry) -> None:
        self.entries.append(entry)
        if entry.event == "finished":
            self._finished[entry.stage] = entry
