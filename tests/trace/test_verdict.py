"""The first error of a path, as a critic's verdicts tell it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.trace.tree import Draw, Tree, Turn, Verdict
from agentloop.trace.verdict import BAD, GOOD, UNCERTAIN, UNPARSABLE, VerdictCounts, first_error, is_walked, steps, verdicts_by_turn

MakeTree = Callable[..., Tree]
VALUES = {GOOD: 1.0, BAD: 0.0, UNCERTAIN: 0.5, UNPARSABLE: None}


def step(name: str, parent: str | None, observation: str | None = "seen") -> Turn:
    return Turn(name, parent, None, (1,), (2,), (-1.0,), "x", Draw("base"), fresh="start", action="x", observation=observation)


def verdict(turn: str, label: str, *, critic: str = "first_error", stage: str = "errors") -> Verdict:
    return Verdict(critic, turn, VALUES[label], label, stage=stage)


FORKED = Tree("t", "t", "e", "train", turns=(step("a", None), step("b", "a"), step("c", "b"), step("d", "b"), step("e", "d", None)))
"""a - b - c, and b - d - e, where e never acted."""


def test_the_first_bad_step_of_each_path() -> None:
    tree = FORKED.with_verdicts([verdict("a", UNCERTAIN), verdict("b", GOOD), verdict("c", BAD), verdict("d", GOOD)])
    assert first_error(tree, "c") is tree["c"]
    assert first_error(tree, "e") is None
    assert is_walked(tree, "c") and is_walked(tree, "e")


def test_no_verdict_is_not_no_error() -> None:
    tree = FORKED.with_verdicts([verdict("a", GOOD), verdict("b", UNPARSABLE)])
    assert first_error(tree, "c") is None
    assert is_walked(tree, "b")
    assert not is_walked(tree, "c")


def test_other_critics_and_other_stages_do_not_count() -> None:
    tree = FORKED.with_verdicts([verdict("a", BAD, critic="rubric"), verdict("b", BAD, stage="early"), verdict("b", GOOD, stage="late")])
    assert first_error(tree, "c") is None
    assert first_error(tree, "c", stage="early") is tree["b"]
    assert [each.stage for each in verdicts_by_turn(tree, "first_error").values()] == ["late"]


def test_a_step_acted_and_was_answered(make_tree: MakeTree) -> None:
    question = dataclasses.replace(step("b.q", "b", None), fresh="critic", seat="critic")
    tree = FORKED.with_verdicts([], [question])
    assert [turn.id for turn in steps(tree, "e")] == ["a", "b", "d"]
    assert [turn.id for turn in steps(tree, "b.q")] == ["a", "b"]


@settings(deadline=None)
@given(labels=st.lists(st.sampled_from([*VALUES, None]), max_size=6))
def test_any_path_against_its_list_of_labels(labels: list[str | None]) -> None:
    names = [str(number) for number in range(len(labels))]
    turns = [step(name, names[int(name) - 1] if name != "0" else None) for name in names]
    tree = Tree("t", "t", "e", "train", turns=tuple(turns))
    tree = tree.with_verdicts([verdict(name, label) for name, label in zip(names, labels, strict=True) if label is not None])
    if not labels:
        return
    found = first_error(tree, names[-1])
    assert (labels.index(BAD) if BAD in labels else None) == (int(found.id) if found else None)
    before = labels[: labels.index(BAD)] if BAD in labels else labels
    assert is_walked(tree, names[-1]) == (None not in before)


def test_verdicts_in_numbers() -> None:
    tree = FORKED.with_verdicts([verdict("a", GOOD), verdict("b", UNPARSABLE), verdict("c", BAD), verdict("d", BAD, stage="other")])
    counts = VerdictCounts.of([tree, FORKED], "errors")
    assert counts == VerdictCounts(3, {BAD: 1, GOOD: 1}, 1, 0.5)
    assert counts.in_words() == "3 verdicts · Bad 1, Good 1 · mean 0.500 · unparsable 1"
    scored = FORKED.with_verdicts([Verdict("scoring", "c", 0.25, stage="s")])
    assert VerdictCounts.of([scored], "s").in_words() == "1 verdicts · mean 0.250 · unparsable 0"
    assert VerdictCounts.of([scored], "t").in_words() == "no verdicts"
