"""The training view of a segment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from agentloop.trace.segment import fresh_counts, segment_ids
from agentloop.trace.tree import Tree

MakeTree = Callable[..., Tree]


def test_ids_mask_and_logprobs_line_up(make_tree: MakeTree) -> None:
    (segment,) = make_tree("t0", (0,), tokens=2).segments("0.1")
    ids, mask, logprobs = segment_ids(segment)
    assert ids == (0, 1, 50, 51, 7, 8, 9)
    assert mask == (0, 0, 1, 1, 0, 0, 1)
    assert logprobs == (0.0, 0.0, 0.0, -0.1, 0.0, 0.0, -1.5)


def test_only_chosen_turns_train(make_tree: MakeTree) -> None:
    (segment,) = make_tree("t0", (0,), tokens=2).segments("0.1")
    ids, mask, logprobs = segment_ids(segment, trained={"0.1"})
    assert ids == segment_ids(segment).ids
    assert mask == (0, 0, 0, 0, 0, 0, 1)
    assert logprobs == (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.5)


def test_turns_that_were_taken_over_do_not_train(make_tree: MakeTree) -> None:
    first, second = make_tree("t0", (0,), tokens=2).segments("0.1")[0]
    assert segment_ids((dataclasses.replace(first, given=True), second)).mask == (0, 0, 0, 0, 0, 0, 1)


def test_an_authored_turn_that_trains_has_no_logprobs(make_tree: MakeTree) -> None:
    first, second = make_tree("t0", (0,), tokens=2).segments("0.1")[0]
    authored = (dataclasses.replace(first, logprobs=None), second)
    assert segment_ids(authored).logprobs is None
    assert segment_ids(authored, trained={"0.1"}).logprobs == (0.0,) * 6 + (-1.5,)


def test_turns_that_are_not_one_context_are_refused(make_tree: MakeTree) -> None:
    first, second = make_tree("t0", (0,)).segments("0.1")[0]
    for turns in ((second,), (first, first), (second, first)):
        with pytest.raises(ValueError, match="in a segment"):
            segment_ids(turns)


def test_fresh_contexts_are_counted_by_reason(make_tree: MakeTree) -> None:
    tree = make_tree("t0", (0, 1))
    turns = tuple(dataclasses.replace(turn, extends=None, fresh="template") if turn.id == "1.1" else turn for turn in tree.turns)
    assert fresh_counts(dataclasses.replace(tree, turns=turns)) == {"start": 2, "template": 1}
