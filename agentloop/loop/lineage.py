"""Which adapter each role plays with now, and which is the best so far: replayed from the journal, never stored apart from it.

Two kinds of finished stage move a lineage: a `train` stage makes a new version current; a `gate` stage either adopts the current version as
the best or returns to the best one. Everything else leaves it alone. Without a gate the latest version counts as the best.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentloop.engine.base import BASE, AdapterVersion
from agentloop.run.journal import Entry


@dataclass(frozen=True, slots=True)
class Incumbent:
    """The best version so far, as the last gate judged it.

    Attributes:
        adapter: Its versioned name, or `BASE`.
        value: Its value of the gate's metric; None while it was never measured.
    """

    adapter: str = BASE
    value: float | None = None


@dataclass(slots=True)
class Lineage:
    """The versions of one run.

    Attributes:
        versions: Every version that was trained, by versioned name.
        current: Versioned name in use, by role; `BASE` if a role has none yet.
        best: The incumbent, by role.
        superseded: Names of the versions that are neither any more, in the order in which they ceased to be.
    """

    versions: dict[str, AdapterVersion] = field(default_factory=dict)
    current: dict[str, str] = field(default_factory=dict)
    best: dict[str, Incumbent] = field(default_factory=dict)
    superseded: list[str] = field(default_factory=list)

    @staticmethod
    def replay(entries: Iterable[Entry], root: Path) -> Lineage:
        """The lineage after the given finished entries of the run in directory `root`."""
        lineage = Lineage()
        for entry in entries:
            lineage.apply(entry, root)
        return lineage

    def apply(self, entry: Entry, root: Path) -> None:
        """Move on by one finished stage."""
        before = self.in_use()
        for output in entry.outputs.values():
            if output.type == "adapter":
                version = AdapterVersion(output.about["name"], root / output.path, output.content_hash)
                self.versions[version.name] = version
                self.current[output.about["role"]] = version.name
        if "gate" in entry.about:
            decision: dict[str, Any] = entry.about["gate"]
            self.best[decision["role"]] = Incumbent(decision["best"], decision["value"])
            self.current[decision["role"]] = decision["best"]
        self.superseded += sorted(before - self.in_use())

    def playing(self, role: str) -> str:
        """Versioned name of the adapter that `role` plays with now."""
        return self.current.get(role, BASE)

    def best_of(self, role: str) -> str:
        """Versioned name of the best adapter of `role`: the last gate's, or the latest if there was no gate."""
        return self.best[role].adapter if role in self.best else self.playing(role)

    def start_of(self, role: str, start: str) -> AdapterVersion | None:
        """The version that training of `role` continues from under `start` ("base", "previous" or "best"); None means a fresh adapter."""
        name = {"base": BASE, "previous": self.playing(role), "best": self.best_of(role)}[start]
        return self.versions.get(name)

    def in_use(self) -> set[str]:
        """Versioned names that a later stage may still sample from or continue: the current and the best of every role."""
        names = set(self.current.values()) | {incumbent.adapter for incumbent in self.best.values()}
        return names - {BASE}


def decide(*, candidate: str, value: float, incumbent: Incumbent, margin: float) -> Incumbent:
    """The gate with `keep: best`: the candidate is adopted when it is better than the incumbent by more than `margin`.

    An incumbent that was never measured cannot be defended, so the candidate is adopted. A candidate that is the incumbent stays, with
    its new value.
    """
    if incumbent.value is None or candidate == incumbent.adapter or value - incumbent.value > margin:
        return Incumbent(candidate, value)
    return incumbent
