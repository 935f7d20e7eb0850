"""What became of a turn is read from provenance alone."""

from __future__ import annotations

from agentloop.dataset.preference_row import PreferenceRow, Side
from agentloop.dataset.row import Provenance
from agentloop.report.marks import Mark, marks_of, trained_turns, use_of
from tests.report.searched import row


def test_a_splice_trains_on_its_good_tail_and_holds_the_bad_path() -> None:
    marks = marks_of([row("r", Provenance("t", ("1", "1.0"), stage="rows", iteration=2, context=("0", "0.0")))])
    assert {turn: [mark.use for mark in uses] for (_, turn), uses in marks.items()} == {
        "1": ["trained"],
        "1.0": ["trained"],
        "0": ["context"],
        "0.0": ["context"],
    }
    assert marks["t", "1"] == (Mark("trained", "002/rows", "r"),)
    assert trained_turns(marks) == {("t", "1"), ("t", "1.0")}


def test_a_pair_trains_on_one_side_and_against_the_other() -> None:
    def side(turn: str) -> Side:
        return Side((1,), (1,), 0.0, Provenance("t", (turn,), stage="pairs", context=("0",)))

    marks = marks_of([PreferenceRow("p", (1,), side("0.1"), side("0.2"), "actor", "a", False, "base", 1.0)])
    assert {turn: use_of(uses) for (_, turn), uses in marks.items()} == {"0.1": "trained", "0.2": "rejected", "0": "context"}
    assert len(marks["t", "0"]) == 1, "both sides hold it, and it is one row"
    assert trained_turns(marks) == {("t", "0.1"), ("t", "0.2")}


def test_what_one_row_trains_on_counts_before_what_others_do_with_it() -> None:
    made = [Provenance("t", (), context=("0",)), Provenance("t", ("0",))]
    marks = marks_of(row(str(number), provenance) for number, provenance in enumerate(made))
    assert len(marks["t", "0"]) == 2 and use_of(marks["t", "0"]) == "trained"
    assert use_of(()) is None
