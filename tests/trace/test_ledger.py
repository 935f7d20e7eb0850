"""Tokens are counted once, whatever was killed and booked again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentloop.trace.ledger import Account, Ledger, Tokens
from agentloop.trace.store import TreeWriter, read_trees
from agentloop.trace.tree import Draw, Spent, Tree, Turn

MakeTree = Callable[..., Tree]

ledgers = st.dictionaries(
    st.builds(Account, st.sampled_from(["trees", "train"]), st.integers(0, 2), st.sampled_from(["actor", "critic"])),
    st.builds(Tokens, *[st.integers(0, 1000)] * 6),
    max_size=5,
).map(Ledger)


def test_prompts_count_in_full_at_every_turn(make_tree: MakeTree) -> None:
    ledger = Ledger.of_trees([make_tree("t0", (0, 1), tokens=4)], "trees", 3)
    # A sample's first turn reads 4 and writes 4; its second reads these and two more, and writes one.
    assert dict(ledger) == {Account("trees", 3, "actor"): Tokens(prompt=2 * (4 + 10), cached=2 * 5, generated=2 * 5, turns=4)}
    assert ledger.total().total == 28 - 10 + 10


def test_a_prompt_is_the_context_of_its_turn(make_tree: MakeTree) -> None:
    tree = make_tree("t0", (0, 1, 2), tokens=9)
    expected = sum(len(tree.context_ids(turn.id)) for turn in tree.turns)
    assert Ledger.of_trees([tree], "trees").total().prompt == expected


def test_turns_that_were_taken_over_were_paid_for_elsewhere(make_tree: MakeTree) -> None:
    tree = make_tree("t0", (0,), tokens=4)
    taken = dataclasses.replace(tree, turns=(dataclasses.replace(tree.turns[0], given=True), *tree.turns[1:]))
    assert Ledger.of_trees([taken], "again").total() == Tokens(prompt=10, cached=3, generated=1, turns=1)


def test_critics_are_judged_tokens_of_their_role_and_authored_turns_cost_nothing(make_tree: MakeTree) -> None:
    tree = make_tree("t0", (0,))
    question = Turn("c", "0.1", None, (1,) * 30, (2,) * 3, (-1.0,) * 3, "Bad", Draw("base"), fresh="critic", seat="critic", role="judge")
    written = Turn("w", "0.1", None, (1,) * 30, (2,) * 3, None, "x", Draw("base", kind="authored"), fresh="authored", finish="authored")
    ledger = Ledger.of_trees([tree.with_verdicts((), (question, written))], "trees")
    assert ledger.total(role="judge") == Tokens(judged=33, turns=1)
    assert ledger.total(role="actor") == Ledger.of_trees([tree], "trees").total()


def test_what_another_model_read_and_wrote_is_judged_as_its_server_counts(make_tree: MakeTree) -> None:
    tree = make_tree("t0", (0,))
    info = {"question": "?", "prompt_tokens": 40, "completion_tokens": 2}
    far = Turn("c", "0.1", None, (), (), None, "Bad", Draw("x", kind="foreign"), fresh="critic", seat="critic", role="far", info=info)
    ledger = Ledger.of_trees([tree.with_verdicts((), (far,))], "trees")
    assert ledger.total(role="far") == Tokens(judged=42, turns=1)


def test_what_was_sampled_and_not_kept_is_counted_too(make_tree: MakeTree) -> None:
    tree = make_tree("t0", (0,))
    spent = Spent(requests=2, prompt=20, cached=16, generated=5)
    draw = dataclasses.replace(tree.turns[1].draw, copies=3, kind="deduplicated")
    several = dataclasses.replace(tree, turns=(tree.turns[0], dataclasses.replace(tree.turns[1], draw=draw, spent=spent)))
    expected = Ledger.of_trees([tree], "s").total() + Tokens(prompt=20, cached=16, generated=5, turns=2)
    assert Ledger.of_trees([several], "s").total() == expected


def test_an_admissible_action_was_read_and_not_generated(make_tree: MakeTree) -> None:
    tree = make_tree("t0", (0,))
    turns = tuple(dataclasses.replace(turn, draw=dataclasses.replace(turn.draw, kind="admissible")) for turn in tree.turns)
    counted, sampled = (Ledger.of_trees([one], "s").total() for one in (dataclasses.replace(tree, turns=turns), tree))
    assert counted == dataclasses.replace(sampled, generated=0, prompt=sampled.prompt + sampled.generated)


def test_a_resumed_stage_counts_the_same(tmp_path: Path, make_tree: MakeTree) -> None:
    def sample(path: Path, kills: int) -> Ledger:
        for _ in range(kills + 1):
            writer = TreeWriter(path)
            todo = [n for n in range(6) if ("000/trees/t0", n) not in writer.finished]
            for number in todo[:2] if kills else todo:
                writer.add(make_tree("t0", (number,)))
        return Ledger.of_trees(read_trees(writer.finish()), "trees", 1)

    straight, resumed = sample(tmp_path / "a.parquet", 0), sample(tmp_path / "b.parquet", 2)
    assert straight == resumed
    run = Ledger()
    run.book(straight)
    run.book(Ledger.of_training(500, "train", 1))
    run.book(resumed)
    assert run.total() == straight.total() + Tokens(trained=500)
    assert run.total(stage="train") == Tokens(trained=500)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(first=ledgers, second=ledgers)
def test_ledgers_add_up_and_come_back_from_json(first: Ledger, second: Ledger) -> None:
    assert Ledger.from_json(json.loads(json.dumps(first.to_json()))) == first
    both = first + second
    assert both == second + first
    assert both.total() == first.total() + second.total()
    for iteration in range(3):
        assert both.total(iteration=iteration) == first.total(iteration=iteration) + second.total(iteration=iteration)
    first.book(second)
    once = first.to_json()
    first.book(second)
    assert first.to_json() == once
