"""Visits and values come back from a tree as they were put in."""

from __future__ import annotations

from collections.abc import Callable

from agentloop.trace.search_statistics import NodeStatistics, search_statistics, statistics_verdicts
from agentloop.trace.tree import Tree, Verdict

MakeTree = Callable[..., Tree]


def test_statistics_come_back_beside_the_verdicts_of_critics(make_tree: MakeTree) -> None:
    tree = make_tree("t0", (0, 1))
    known = {"0.0": NodeStatistics(3, 0.5), "0.1": NodeStatistics(0, None), "1.0": NodeStatistics(2, 0.0)}
    verdicts = [verdict for turn, found in known.items() for verdict in statistics_verdicts(turn, found, stage="trees")]
    judged = tree.with_verdicts([Verdict("outcome", "0.1", 1.0), *verdicts, Verdict("rubric", "0.0", None, "unparsable")])
    assert search_statistics(judged) == known
    assert all(verdict.stage == "trees" for verdict in verdicts) and all(verdict.value is not None for verdict in verdicts)


def test_what_no_search_made_has_none(make_tree: MakeTree) -> None:
    assert search_statistics(make_tree("t0", (0, 1))) == {}
