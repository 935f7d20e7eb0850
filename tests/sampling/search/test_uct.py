"""UCT alone: scores, ties, virtual losses, what is terminal, and what is never selected."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.sampling.search.uct import Child, Node, Uct


def grown(*children: Child, exploration: float = 0.25, seed: int = 0) -> Uct:
    uct = Uct(exploration=exploration, seed=seed)
    uct.expand(uct.root, children)
    return uct


def test_the_score_is_the_published_formula() -> None:
    uct = grown(Child("a"), Child("b"))
    uct.back_up(uct["a"], 1.0)
    uct.back_up(uct["a"], 0.0)
    uct.back_up(uct["b"], 0.5)
    assert uct.score(uct["a"]) == 1.0 / 2 + 0.25 * math.sqrt(math.log(3) / 2)
    assert uct.score(uct["b"]) == 0.5 / 1 + 0.25 * math.sqrt(math.log(3) / 1)
    assert uct.select(0) is uct["b"]


def test_an_unvisited_child_comes_first() -> None:
    uct = grown(Child("a"), Child("b"))
    uct.back_up(uct["a"], 1.0)
    assert uct.score(uct["b"]) == math.inf and uct.select(0) is uct["b"]


def test_terminal_children_are_backed_up_at_once_and_never_selected() -> None:
    uct = grown(Child("won", True, 1.0), Child("open"), Child("lost", True, 0.0))
    assert (uct.root.visits, uct.root.value) == (2, 1.0) and uct.root.mean == 0.5
    assert {uct.select(number) for number in range(20)} == {uct["open"]}


def test_a_node_is_terminal_when_all_its_children_are_and_so_up_to_the_root() -> None:
    uct = grown(Child("a"), Child("b", True, 0.0))
    uct.expand(uct["a"], [Child("a.0"), Child("a.1", True, 0.0)])
    assert not uct["a"].terminal
    uct.expand(uct["a.0"], [Child("a.0.0", True, 1.0)])
    assert uct["a.0"].terminal and uct["a"].terminal and uct.root.terminal
    assert uct.select(0) is None and uct.root.value == 1.0 and uct.root.visits == 3


def test_a_dead_end_is_terminal_without_being_counted() -> None:
    uct = grown(Child("a"), Child("b"))
    uct.expand(uct["a"], [])
    assert uct["a"].terminal and uct.root.visits == 0 and uct.select(0) is uct["b"]
    uct.close(uct["b"])
    assert uct.root.terminal and uct.select(1) is None


def test_a_node_is_expanded_once() -> None:
    uct = grown(Child("a"))
    with pytest.raises(ValueError, match="expanded before"):
        uct.expand(uct.root, [])


def test_ties_depend_on_the_seed_and_the_simulation_and_meet_every_child() -> None:
    children = [Child(name) for name in "abcd"]
    chosen = {seed: [uct.select(number).id for number in range(40)] for seed in (1, 2) for uct in (grown(*children, seed=seed),)}  # type: ignore[union-attr]
    assert chosen[1] != chosen[2] and set(chosen[1]) == set(chosen[2]) == set("abcd")
    again = grown(*children, seed=1)
    assert [again.select(number).id for number in range(40)] == chosen[1]  # type: ignore[union-attr]


def test_a_leaf_under_expansion_is_not_given_out_twice_and_counts_as_a_loss_meanwhile() -> None:
    uct = grown(Child("a"), Child("b"), exploration=0.5)
    for _ in range(2):
        uct.back_up(uct["a"], 1.0)
        uct.back_up(uct["b"], 0.9)
    first = uct.select(0)
    assert first is uct["a"]
    uct.reserve(first)
    assert uct.score(first) == 2.0 / 3 + 0.5 * math.sqrt(math.log(5) / 3)
    assert uct.select(0) is uct["b"]
    uct.reserve(uct["b"])
    assert uct.select(0) is None
    uct.release(uct["b"])
    uct.release(first)
    assert uct.select(0) is first and all(node.pending == 0 for node in uct)


def test_below_a_node_whose_leaves_are_all_under_expansion_the_next_best_is_sought() -> None:
    uct = grown(Child("a"), Child("b"))
    uct.back_up(uct["a"], 1.0)
    uct.back_up(uct["b"], 0.0)
    uct.expand(uct["a"], [Child("a.0")])
    uct.reserve(uct["a.0"])
    assert uct.select(0) is uct["b"] and uct.select(0, uct["a"]) is None


class NaiveNode:
    """A node of the brute-force twin below, after the published code: no caches, no virtual loss, everything computed anew."""

    def __init__(self, node: Node) -> None:
        self.children = [NaiveNode(child) for child in node.children]
        self.id, self.visits, self.value = node.id, node.visits, node.value
        self.leaf = not node.expanded
        self.terminal = node.terminal if not node.children else all(child.terminal for child in self.children)


def naive_choice(node: NaiveNode, exploration: float) -> set[str]:
    """Every leaf that the published selection could choose."""
    if node.leaf:
        return set() if node.terminal else {node.id}
    best, found = -math.inf, set[str]()
    for child in node.children:
        if child.terminal:
            continue
        score = math.inf
        if child.visits:
            score = child.value / child.visits + exploration * math.sqrt(math.log(node.visits) / child.visits)
        if score > best:
            best, found = score, naive_choice(child, exploration)
        elif score == best:
            found |= naive_choice(child, exploration)
    return found


@settings(max_examples=150)
@given(seed=st.integers(0, 10**9), exploration=st.sampled_from([0.0, 0.25, 2.0]), leaves=st.integers(1, 4), steps=st.integers(1, 25))
def test_random_searches_keep_their_sums_and_select_as_the_twin_does(seed: int, exploration: float, leaves: int, steps: int) -> None:
    chance = random.Random(seed)
    uct = Uct(exploration=exploration, seed=seed)
    backed_up: dict[str, list[float]] = {}
    for step in range(steps):
        wave = []
        while len(wave) < leaves and (leaf := uct.select(step)) is not None:
            if not wave:
                assert leaf.id in naive_choice(NaiveNode(uct.root), exploration)
            uct.reserve(leaf)
            wave.append(leaf)
        assert len(set(map(id, wave))) == len(wave)
        if not wave:
            assert uct.root.terminal
            break
        for leaf in wave:
            uct.release(leaf)
            kind = chance.random()
            if kind < 0.1:
                uct.close(leaf)
                continue
            names = [f"{leaf.id}.{number}" for number in range(chance.randrange(4))]
            children = [Child(name, chance.random() < 0.4, chance.random()) for name in names]
            for child in children:
                if child.terminal:
                    backed_up.setdefault(child.id, []).append(child.value)
            uct.expand(leaf, children)
    for node in uct:
        below = [value for name, values in backed_up.items() if name == node.id or name.startswith(node.id + ".") for value in values]
        below = [value for values in backed_up.values() for value in values] if not node.id else below
        assert node.visits == len(below) and node.value == pytest.approx(sum(below))
        assert node.pending == 0
        assert not node.children or node.terminal == all(child.terminal for child in node.children)
