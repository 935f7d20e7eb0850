"""Which turns became training data, read from the provenance of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from agentloop.dataset.preference_row import PreferenceRow
from agentloop.dataset.row import Provenance, Row

Use = Literal["trained", "rejected", "context"]
"""What a row does with a turn: trains on it, trains against it (the worse side of a pair), or holds it (or its context) with mask 0.

The first of these that holds of a turn is the one that it is coloured by.
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """One use of a turn by one row.

    Attributes:
        use: What the row does with it.
        stage: Key of the build stage, "ITERATION/ID".
        row: Id of the row.
    """

    use: Use
    stage: str
    row: str


Marks = Mapping[tuple[str, str], tuple[Mark, ...]]
"""Uses by (tree id, turn id)."""


def marks_of(rows: Iterable[Row | PreferenceRow]) -> Marks:
    """Every use of every turn by `rows`."""
    found: dict[tuple[str, str], tuple[Mark, ...]] = {}
    for row in rows:
        for use, provenance in _provenances(row):
            stage = f"{provenance.iteration:03d}/{provenance.stage}"
            for turns, mark in ((provenance.turns, Mark(use, stage, row.id)), (provenance.context, Mark("context", stage, row.id))):
                for turn in turns:
                    key = (provenance.tree, turn)
                    if mark not in found.get(key, ()):  # both sides of a pair hold the same context
                        found[key] = (*found.get(key, ()), mark)
    return found


def trained_turns(marks: Marks) -> set[tuple[str, str]]:
    """(tree id, turn id) of every turn that some row trains on, be it towards it or away from it."""
    return {key for key, uses in marks.items() if any(mark.use != "context" for mark in uses)}


def use_of(marks: Iterable[Mark]) -> Use | None:
    """The use that a turn is coloured by; None if no row holds it."""
    uses = {mark.use for mark in marks}
    order: tuple[Use, ...] = ("trained", "rejected", "context")
    return next((use for use in order if use in uses), None)


def _provenances(row: Row | PreferenceRow) -> Iterator[tuple[Use, Provenance]]:
    if isinstance(row, PreferenceRow):
        yield "trained", row.chosen.provenance
        yield "rejected", row.rejected.provenance
    else:
        yield "trained", row.provenance
