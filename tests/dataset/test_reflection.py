"""Spliced and replayed revisions: which pairs, cut where, and that ids and mask are exact over the templates of real models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentloop.dataset import direct_revision, optimal_only, reflection, self_imitation
from agentloop.dataset.reflection import Settings
from agentloop.dataset.row import Row
from agentloop.trace.author import Author
from agentloop.trace.thoughts import THOUGHTS
from agentloop.trace.tree import Tree, Turn, Verdict
from agentloop.trace.verdict import BAD, FIRST_ERROR, GOOD
from tests.dataset.grown_trees import FIRST, bushy_trees, official, renderer_of
from tests.dataset.handmade_trees import STOP, episode, tree
from tests.sampling.world import CharacterTokenizer

TEMPLATES = ["smollm2", "qwen2_5", "qwen3", "llama3", "gemma", "phi3", "deepseek_r1_distill"]
ALPHAS = [0.3, 0.5, 0.7, 0.8, 1.0]


def built(trees: list[Tree], template: str = "smollm2", **options: Any) -> list[Row]:
    return list(reflection.build(trees, Settings(**options), author=Author(renderer_of(template)), stage="rows", iteration=2))


def judged(tree: Tree, **labels: str) -> Tree:
    """The tree with first-error verdicts: t0_1=BAD is of turn 0.1; every other turn is Good."""
    said = {turn.id: labels.get(f"t{turn.id.replace('.', '_')}", GOOD) for turn in tree.turns}
    return tree.with_verdicts([Verdict(FIRST_ERROR, turn, 1.0 if label == GOOD else 0.0, label) for turn, label in said.items()])


def written(row: Row) -> list[int]:
    return [token for token, trained in zip(row.input_ids, row.mask, strict=True) if trained]


# By brute force: the pairs, their cuts, and what is before and after the thought.


def naive_splices(tree: Tree, alpha: float, beta: float) -> set[tuple[Any, Any]]:
    """What reflection must splice, from the definition alone: (completions before the thought, completions after it)."""
    ended = [turn for turn in tree.turns if not tree.children(turn.id) and (turn.done or turn.truncated)]
    labels = {verdict.turn: verdict.label for verdict in tree.verdicts}
    found = set()
    for good in ended:
        for bad in ended:
            high, low = tree.episode_return(good.id), tree.episode_return(bad.id)
            if not good.done or high < alpha or high <= low or round(high - low, 6) < beta:
                continue
            wrong, right = list(tree.path(bad.id)), list(tree.path(good.id))
            at = walk(wrong, labels)
            if at is None:
                continue
            common = 0
            while common < min(len(wrong), len(right)) and said(wrong[common]) == said(right[common]):
                common += 1
            if common == len(wrong) or common == len(right):
                continue
            before = wrong[: max(at, common + 1)]
            found.add((tuple(t.completion_ids for t in before), tuple(t.completion_ids for t in right[common:])))
    return found


def walk(path: list[Turn], labels: dict[str, str | None]) -> int | None:
    """Turns up to and with the first Bad one, all if there is none; None where the walk broke off."""
    for number, turn in enumerate(path):
        if turn.id not in labels:
            return None
        if labels[turn.id] == BAD:
            return number + 1
    return len(path)


def said(turn: Turn) -> tuple[Any, Any]:
    return turn.completion_ids, turn.observation


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), alpha=st.sampled_from(ALPHAS), beta=st.sampled_from([0.0, 0.2, 0.3]))
def test_the_pairs_and_their_cuts_are_those_of_the_definition(template: str, data: st.DataObject, alpha: float, beta: float) -> None:
    grown = data.draw(bushy_trees(template))
    rows = built([grown], template, alpha=alpha, beta=beta, good=False)
    found = {
        (
            tuple(grown[turn].completion_ids for turn in spliced_bad(row, grown)),
            tuple(grown[turn].completion_ids for turn in spliced_good(row, rows, grown)),
        )
        for row in rows
    }
    assert found == naive_splices(grown, alpha, beta)


def spliced_bad(row: Row, tree: Tree) -> list[str]:
    """The turns before the thought: the path to the last of them is in the context before any turn of the tail."""
    first, *others = row.provenance.context
    path = [first]
    for turn in others:
        if tree[turn].parent != path[-1]:
            break
        path.append(turn)
    return path


def spliced_good(row: Row, rows: list[Row], tree: Tree) -> list[str]:
    """The tail of the splice that a row belongs to, over all rows of it."""
    before = tuple(spliced_bad(row, tree))
    whole = [other for other in rows if tuple(spliced_bad(other, tree)) == before and other.reward == row.reward]
    tails = [[*other.provenance.context[len(before) :], *other.provenance.turns] for other in whole]
    mine = [*row.provenance.context[len(before) :], *row.provenance.turns]
    return max((tail for tail in tails if tail[: len(mine)] == mine), key=len)


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), alpha=st.sampled_from(ALPHAS))
def test_ids_and_mask_of_a_splice_are_exact(template: str, data: st.DataObject, alpha: float) -> None:
    grown = data.draw(bushy_trees(template))
    renderer = renderer_of(template)
    thoughts = {renderer.written(thought): thought for thought in THOUGHTS}
    for row in built([grown], template, alpha=alpha, beta=0.0, good=False):
        bad = [grown[turn] for turn in spliced_bad(row, grown)]
        tail = [grown[turn] for turn in row.provenance.turns]
        earlier = [grown[turn] for turn in row.provenance.context[len(bad) :]]
        assert row.authored and row.logprobs is None and not row.mask[0]
        assert row.reward >= alpha and (row.provenance.stage, row.provenance.iteration) == ("rows", 2)
        assert row.provenance.verdicts == (FIRST_ERROR,)

        # The loss is on the thought and the tail, whole and stop tokens included, and on nothing else.
        trained = written(row)
        sampled = [token for turn in tail for token in turn.completion_ids]
        rest = tuple(trained[: len(trained) - len(sampled)])
        assert trained[len(rest) :] == sampled
        assert rest == () or rest in thoughts

        # What precedes each trained turn is the conversation as the model's own template shows it.
        said_before = [FIRST, *[text for turn in bad for text in (turn.text, turn.observation or "")]]
        if not rest:  # the thought stands in an earlier context
            continue
        start = len(grown.context_ids(bad[-1].id)) + len(bad[-1].completion_ids)
        if row.mask[:start] == (0,) * start and list(row.input_ids[:start]) == [*grown.context_ids(bad[-1].id), *bad[-1].completion_ids]:
            continues = True
        else:
            continues = False
        assert continues or not renderer.keeps(bad[-1].completion_ids), "ids before the thought are those that the model saw"
        before = official(template, said_before)
        assert row.input_ids[: len(before)] == before
        assert row.input_ids[len(before) : len(before) + len(rest)] == rest
        if tail and renderer.keeps(rest):
            answered = official(template, [*said_before, thoughts[rest], "ok."])
            assert row.input_ids[: len(answered)] == answered
            assert row.input_ids[len(answered) : len(answered) + len(tail[0].completion_ids)] == tail[0].completion_ids
        assert not earlier


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), alpha=st.sampled_from(ALPHAS))
def test_every_builder_takes_bushy_trees_and_depends_on_nothing_else(data: st.DataObject, alpha: float) -> None:
    grown = data.draw(bushy_trees("smollm2"))
    author = Author(renderer_of("smollm2"))
    assert built([grown], alpha=alpha) == built([grown], alpha=alpha)
    plain = list(optimal_only.build([grown], optimal_only.Settings(alpha=alpha)))
    assert plain == list(self_imitation.build([grown], self_imitation.Settings(min_reward=alpha)))
    assert all(grown[row.provenance.turns[-1]].done and row.reward >= alpha and not row.authored for row in plain)
    direct = list(direct_revision.build([grown], direct_revision.Settings(alpha=alpha, beta=0.0), author=author))
    spliced = [row for row in direct if row.authored]
    assert {row.id for row in direct if not row.authored} == {row.id for row in plain}
    for row in spliced:
        leaf = grown[row.provenance.context[-1]]
        assert leaf.done or leaf.truncated, "the thought comes at the very end of the bad path"
    assert len({row.id for row in direct}) == len(direct)


# Single cases, on trees whose ids can be read. The tokenizer has one id a character.


def text_author() -> Author:
    from agentloop.trace.render import Renderer

    return Author(Renderer(CharacterTokenizer()))


def spoken(sample: int, words: list[str], *, reward: float = 1.0, observations: list[str] | None = None, **last: Any) -> list[Turn]:
    """An episode in characters, as the toy world's tokenizer has them."""
    turns = []
    for number, turn in enumerate(episode(sample, [[ord(letter) for letter in word] for word in words], reward=reward, **last)):
        ids = (*map(ord, words[number]), 2)
        prompt = tuple(map(ord, "\x01user\ngo\x02\x01assistant\n" if number == 0 else f"\x01user\no{number - 1}\x02\x01assistant\n"))
        turns.append(
            replace(
                turn,
                prompt_ids=prompt,
                completion_ids=ids,
                logprobs=(-1.0,) * len(ids),
                text=words[number],
                observation=(observations or [f"o{k}" for k in range(len(words))])[number],
            )
        )
    return turns


def task(name: str, *episodes: list[Turn], **more: Any) -> Tree:
    return replace(tree(name, *episodes), first_observation="go", **more)


def revised(*trees: Tree, build: Any = reflection, **options: Any) -> list[Row]:
    chosen = build.Settings(**{"thoughts": ("hm",), "good": False} | options)
    return list(build.build(list(trees), chosen, author=text_author(), stage="rows"))


def shown(row: Row) -> str:
    """The row as text, what is trained on in brackets."""
    return "".join(_marked(row)).replace("\x01", "<").replace("\x02", ">").replace("\n", " ").replace("][", "")


def _marked(row: Row) -> Iterator[str]:
    for token, trained in zip(row.input_ids, row.mask, strict=True):
        yield f"[{chr(token)}]" if trained else chr(token)


def test_a_splice_reads_bad_start_thought_good_tail() -> None:
    both = task("a", spoken(0, ["x", "y", "z"], reward=0.0), spoken(1, ["x", "w"]))
    (row,) = revised(judged(both, t0_1=BAD))
    expected = "<user go><assistant x><user o0><assistant y><user o1><assistant [hm>]<user ok.><assistant [w>]"
    assert shown(row) == expected
    assert (row.provenance.context, row.provenance.turns) == (("0.0", "0.1"), ("1.1",))
    assert (row.task, row.reward, row.role, row.adapter) == ("a", 1.0, "actor", "actor-000-abc")


def test_without_a_bad_turn_the_whole_bad_path_stays_which_is_direct_revision() -> None:
    both = task("a", spoken(0, ["x", "y", "z"], reward=0.0), spoken(1, ["x", "w"]))
    (row,) = revised(judged(both))
    assert shown(row).startswith("<user go><assistant x><user o0><assistant y><user o1><assistant z><user o2><assistant [hm>]<user ok.>")
    (direct,) = revised(both, build=direct_revision)
    assert (direct.input_ids, direct.mask) == (row.input_ids, row.mask)


def test_an_error_in_what_both_have_in_common_is_noticed_after_the_first_turn_of_the_bad_path_alone() -> None:
    both = judged(task("a", spoken(0, ["x", "y", "z"], reward=0.0), spoken(1, ["x", "w"])), t0_0=BAD, t1_0=BAD)
    (row,) = revised(both)
    assert row.provenance.context == ("0.0", "0.1")


def test_a_path_that_the_critic_did_not_walk_is_left_out() -> None:
    both = task("a", spoken(0, ["x"], reward=0.0), spoken(1, ["w"]))
    assert revised(both) == []
    assert len(revised(judged(both))) == 1


@pytest.mark.parametrize(
    ("good", "bad", "alpha", "beta", "count"),
    [
        (1.0, 0.0, 1.0, 0.2, 1),  # alpha = 1 keeps what reaches 1: more than alpha would keep nothing
        (0.7, 0.0, 0.7, 0.2, 1),
        (0.69, 0.0, 0.7, 0.2, 0),
        (1.0, 0.8, 1.0, 0.2, 1),  # 1.0 - 0.8 is a little less than 0.2 in floats
        (1.0, 0.81, 1.0, 0.2, 0),
        (1.0, 1.0, 1.0, 0.0, 0),
        (1.0, 0.9, 0.5, 0.0, 1),
    ],
)
def test_alpha_and_beta_are_inclusive_and_equals_are_no_pair(good: float, bad: float, alpha: float, beta: float, count: int) -> None:
    both = task("a", spoken(0, ["x"], reward=bad), spoken(1, ["w"], reward=good))
    assert len(revised(judged(both), alpha=alpha, beta=beta)) == count


def test_a_good_path_must_have_ended_and_a_bad_one_may_have_been_cut() -> None:
    cut = {"done": False, "truncated": "turns"}
    assert len(revised(judged(task("a", spoken(0, ["x"], reward=0.0, **cut), spoken(1, ["w"]))))) == 1
    assert revised(judged(task("a", spoken(0, ["x"], reward=0.0), spoken(1, ["w"], **cut)))) == []
    unfinished = task("a", spoken(0, ["x"], reward=0.0, done=False), spoken(1, ["w"]))
    assert revised(judged(unfinished)) == [], "a leaf that a search never went on from, or that broke, has no outcome"


def test_a_path_with_a_shortened_past_makes_no_pair() -> None:
    for reason in ("window", "summary"):
        windowed = spoken(0, ["x", "y"], reward=0.0)
        windowed[1] = replace(windowed[1], extends=None, fresh=reason)
        assert revised(judged(task("a", windowed, spoken(1, ["w"])))) == []


def test_samples_of_a_group_share_the_turns_in_which_they_agree() -> None:
    first, second = spoken(0, ["x", "y"], reward=0.0), spoken(1, ["x", "w"])
    (row,) = revised(judged(task("a", first, second), t0_1=BAD))
    assert "<assistant [hm>]<user ok.><assistant [w>]" in shown(row), "the x that both said is not said again"
    other = spoken(1, ["x", "w"], observations=["else", "o1"])
    (row,) = revised(judged(task("a", first, other), t0_1=BAD))
    assert "<assistant [hm>]<user ok.><assistant [x>]<user else>" in shown(row), "another answer is another state"


def test_bad_paths_that_part_only_behind_the_cut_make_one_row() -> None:
    first = spoken(0, ["x", "y"], reward=0.0)
    other = replace(first[1], id="0.2", completion_ids=(ord("v"), 2), logprobs=(-1.0, -1.0))
    assert len(revised(judged(task("a", [*first, other], spoken(1, ["w"])), t0_0=BAD))) == 1
    assert len(revised(judged(task("a", [*first, other], spoken(1, ["w"]))))) == 2


def test_a_cap_keeps_the_widest_pairs_of_a_task_over_all_trees() -> None:
    grown = judged(task("a", spoken(0, ["x"], reward=0.5), spoken(1, ["y"], reward=0.0), spoken(2, ["w"])))
    (row,) = revised(grown, per_task=1)
    assert row.provenance.context == ("1.0",)
    again = judged(task("a", spoken(0, ["v"], reward=0.0), spoken(1, ["w"])))
    assert len(revised(grown, again, per_task=2)) == 2
    assert len(revised(grown, replace(again, task="b"), per_task=1)) == 2


def test_of_good_paths_the_best_are_those_with_the_fewest_turns() -> None:
    """The longer good path says something needless first; with `best` it is neither spliced nor a plain row."""
    grown = judged(task("a", spoken(0, ["needless", "w"]), spoken(1, ["w"]), spoken(2, ["x"], reward=0.0)), t2_0=BAD)
    assert len(revised(grown)) == 2
    (row,) = revised(grown, best=1)
    assert row.provenance.turns == ("1.0",)
    plain = list(optimal_only.build([grown], optimal_only.Settings(best=1)))
    assert [row.provenance.turns for row in plain] == [("1.0",)]
    both = revised(grown, best=1, good=True)
    assert [row.provenance.turns for row in both] == [("1.0",), ("1.0",)]


def test_good_paths_are_rows_of_their_own_where_asked_for() -> None:
    both = judged(task("a", spoken(0, ["x"], reward=0.0), spoken(1, ["w"]), spoken(2, ["v"], reward=0.5)))
    plain = [row for row in revised(both, good=True, alpha=0.5) if not row.authored]
    assert [shown(row) for row in plain] == ["<user go><assistant [w>]", "<user go><assistant [v>]"]
    assert all(row.logprobs is not None for row in plain)


def test_thoughts_and_the_answer_are_the_recipes_and_chosen_by_the_seed() -> None:
    grown = judged(task("a", spoken(0, ["x"], reward=0.0), *[spoken(k, ["w" * k]) for k in range(1, 20)]))
    rows = revised(grown, thoughts=("one", "two"), answer="go on")
    chosen = [next(word for word in ("one", "two") if f"[{word}>]" in shown(row).replace("][", "")) for row in rows]
    assert {"one", "two"} == set(chosen) and all("<user go on>" in shown(row) for row in rows)
    other = revised(replace(grown, seed=5), thoughts=("one", "two"))
    assert [shown(row) for row in rows] != [shown(row).replace("ok.", "go on") for row in other]


def test_only_the_role_and_seat_that_is_asked_for_makes_rows() -> None:
    both = judged(task("a", spoken(0, ["x"], reward=0.0), spoken(1, ["w"])))
    assert revised(both, role="critic") == [] and revised(both, seat="judge") == []
    assert len(revised(both, role="actor", seat="actor")) == 1
    mixed = replace(both, turns=(*both.turns[:1], replace(both.turns[1], seat="other")))
    assert len(revised(mixed, build=direct_revision)) == 1


# Replayed: what start_from sampled.


def continued(given: int, words: list[str], *, reward: float = 1.0, **last: Any) -> Tree:
    turns = spoken(0, words, reward=reward, **last)
    return task("a", [replace(turn, given=number < given) for number, turn in enumerate(turns)])


def test_a_replayed_row_is_the_continuation_as_it_came() -> None:
    grown = continued(2, ["x", "y", "hm", "w"])
    (row,) = revised(grown, form="replayed")
    assert shown(row) == "<user go><assistant x><user o0><assistant y><user o1><assistant [hm>]<user o2><assistant [w>]"
    assert (row.provenance.context, row.provenance.turns) == (("0.0", "0.1"), ("0.2", "0.3"))
    assert row.authored and row.logprobs is None and row.provenance.verdicts == ()


def test_only_continuations_that_reach_their_reward_are_rows() -> None:
    assert revised(continued(1, ["x", "w"], reward=0.5), form="replayed") == []
    assert len(revised(continued(1, ["x", "w"], reward=0.5), form="replayed", alpha=0.5)) == 1
    assert revised(continued(1, ["x", "w"], done=False, truncated="turns"), form="replayed") == []
    assert revised(continued(0, ["x", "w"]), form="replayed") == [], "an episode from the start revises nothing"


def test_a_question_that_only_helped_to_write_the_thought_is_not_in_the_row() -> None:
    grown = continued(1, ["x", "hm", "w"])
    asked = tuple(map(ord, "\x01user\no0\n\nWhat went wrong?\x02\x01assistant\n"))
    turns = tuple(replace(turn, prompt_ids=asked) if turn.id == "0.1" else turn for turn in grown.turns)
    (row,) = revised(replace(grown, turns=turns), form="replayed")
    assert "What went wrong?" not in shown(row)
    assert row.input_ids == revised(grown, form="replayed")[0].input_ids


def test_good_paths_of_the_first_trees_are_plain_rows_beside_replayed_ones() -> None:
    plain = task("a", spoken(0, ["v"]))
    rows = revised(plain, continued(1, ["x", "w"]), form="replayed", good=True)
    assert [(row.authored, row.provenance.turns) for row in rows] == [(False, ("0.0",)), (True, ("0.1",))]


def test_self_imitation_does_not_train_on_turns_that_were_taken_over() -> None:
    (row,) = self_imitation.build([continued(1, ["x", "w"])])
    assert shown(row) == "<user go><assistant x><user o0><assistant [w>]"
    assert (row.provenance.turns, row.provenance.context) == (("0.1",), ("0.0",))
    assert STOP not in row.input_ids
