"""Links, segments and merging of trees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise, permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentloop.trace.tree import Draw, Tree, Turn

MakeTree = Callable[..., Tree]


def turn(name: str, parent: str | None, *, extends: str | None = None, seat: str = "actor", prompt: tuple[int, ...] = (1,)) -> Turn:
    fresh = None if extends else "seat" if seat != "actor" else "start"
    return Turn(name, parent, extends, prompt, (9,), (-1.0,), "x", Draw("base"), fresh=fresh, seat=seat)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_contexts_and_segments_of_any_tree(data: st.DataObject) -> None:
    """Held against a plain recursion over the links."""
    turns: list[Turn] = []
    for number in range(data.draw(st.integers(1, 8))):
        parent = data.draw(st.sampled_from([None, *turns]))
        extends = parent if parent is not None and data.draw(st.booleans()) else None
        name = extends.id if extends else None
        turns.append(turn(str(number), parent.id if parent else None, extends=name, prompt=(number,)))
    tree = Tree("t", "t", "e", "train", turns=tuple(turns))

    def context(one: Turn) -> list[int]:
        return ([*context(tree[one.extends]), 9] if one.extends else []) + list(one.prompt_ids)

    for one in turns:
        assert tree.context_ids(one.id) == context(one)
    for leaf in tree.leaves():
        segments = tree.segments(leaf.id)
        assert [one for segment in segments for one in segment] == list(tree.path(leaf.id))
        for segment in segments:
            assert segment[0].extends is None
            assert all(later.extends == earlier.id for earlier, later in pairwise(segment))


def test_a_trajectory_is_one_seats(make_tree: MakeTree) -> None:
    turns = (
        turn("a0", None),
        turn("b0", "a0", seat="buyer"),
        turn("a1", "b0", extends="a0"),
        turn("b1", "a1", extends="b0", seat="buyer"),
    )
    tree = Tree("t", "t", "e", "train", turns=turns)
    assert [[one.id for one in segment] for segment in tree.segments("b1")] == [["a0", "a1"]]
    assert [[one.id for one in segment] for segment in tree.segments("b1", seat="buyer")] == [["b0", "b1"]]


def test_merging_does_not_depend_on_who_finished_first(make_tree: MakeTree) -> None:
    fragments = [make_tree("t0", (sample,)) for sample in range(3)]
    for order in permutations(fragments):
        assert Tree.merge(order) == make_tree("t0", (0, 1, 2))
    with pytest.raises(ValueError, match="two turns with id"):
        Tree.merge([fragments[0], fragments[0]])
    with pytest.raises(ValueError, match="different trees"):
        Tree.merge([fragments[0], make_tree("t1", (1,))])


def test_fragments_that_start_from_one_node_hold_the_way_to_it_once(make_tree: MakeTree) -> None:
    taken = dataclasses.replace(turn("a", None), given=True)
    parts = [Tree("t", "t", "e", "train", turns=(taken, turn(f"r{sample}.0", "a", extends="a")), samples=(sample,)) for sample in range(3)]
    for order in permutations(parts):
        merged = Tree.merge(order)
        assert [one.id for one in merged.turns] == ["a", "r0.0", "r1.0", "r2.0"]
    other = dataclasses.replace(parts[1], turns=(dataclasses.replace(taken, text="y"), *parts[1].turns[1:]))
    with pytest.raises(ValueError, match="took over turn 'a', each another"):
        Tree.merge([parts[0], other])


def test_a_turn_that_was_taken_over_is_no_episode(make_tree: MakeTree) -> None:
    way = (dataclasses.replace(turn("a", None), given=True), dataclasses.replace(turn("b", "a", extends="a"), given=True))
    assert [leaf.id for leaf in Tree("t", "t", "e", "train", turns=way).leaves()] == [], "an episode that broke before its first turn"
    assert [leaf.id for leaf in Tree("t", "t", "e", "train", turns=(*way, turn("c", "b", extends="b"))).leaves()] == ["c"]


def test_broken_links_are_refused() -> None:
    with pytest.raises(ValueError, match="does not precede"):
        Tree("t", "t", "e", "train", turns=(turn("1", "0"), turn("0", None)))
    with pytest.raises(ValueError, match="exactly one of"):
        dataclasses.replace(turn("0", None), fresh=None)
    with pytest.raises(ValueError, match="2 log-probabilities for 1"):
        dataclasses.replace(turn("0", None), logprobs=(-1.0, -1.0))


def test_only_plain_draws_have_ratios() -> None:
    assert Draw("base", temperature=0.7).has_ratio
    assert not Draw("base", top_p=0.9).has_ratio
    assert not Draw("base", top_k=5).has_ratio
    assert not Draw("base", kind="deduplicated").has_ratio


def test_critics_turns_are_in_the_tree_and_in_no_episode() -> None:
    asked = dataclasses.replace(turn("a/judge.0.0", "a", seat="critic"), fresh="critic")
    again = turn("a/judge.0.1", "a/judge.0.0", extends="a/judge.0.0", seat="critic")
    fresh = dataclasses.replace(again, id="b/judge.0.1", extends=None, fresh="template")  # where the template alters the first answer
    tree = Tree("t", "t", "e", "train", turns=(turn("a", None), turn("b", "a", extends="a"), asked, again, fresh))
    assert [leaf.id for leaf in tree.leaves()] == ["b"]
    assert [leaf.id for leaf in tree.leaves(seat="critic")] == ["a/judge.0.1", "b/judge.0.1"]
    assert [child.id for child in tree.children("a")] == ["b"]
    assert [child.id for child in tree.children("a", critics=True)] == ["a/judge.0.0"]
    assert [[one.id for one in segment] for segment in tree.segments("a/judge.0.1", seat="critic")] == [["a/judge.0.0", "a/judge.0.1"]]
    assert [[one.id for one in segment] for segment in tree.segments("b/judge.0.1", seat="critic")] == [["a/judge.0.0"], ["b/judge.0.1"]]


def test_a_foreign_turn_has_no_ids_and_nothing_continues_it() -> None:
    draw = Draw("large at host", kind="foreign")
    foreign = Turn("f", None, None, (), (), None, "Judgement: Bad", draw, fresh="critic", seat="critic", info={"prompt_tokens": 9})
    assert foreign.foreign and not foreign.authored and not draw.has_ratio and not Draw("base", kind="constrained").has_ratio
    for wrong in ({"prompt_ids": (1,)}, {"completion_ids": (1,)}, {"logprobs": ()}):
        with pytest.raises(ValueError, match="ids of a foreign model are not known"):
            dataclasses.replace(foreign, **wrong)
    with pytest.raises(ValueError, match="extends 'f', whose ids are not known"):
        Tree("t", "t", "e", "train", turns=(foreign, turn("g", "f", extends="f")))
