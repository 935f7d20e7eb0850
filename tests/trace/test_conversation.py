"""What happens when a context overflows, and that conversations can be forked."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentloop.trace.conversation import SUMMARY_QUESTION, WINDOW_NOTE
from agentloop.trace.render import ContextFull, Conversation, Overflow, Prompt, Renderer
from agentloop.trace.segment import TRAINS, segment_ids
from agentloop.trace.tree import Draw, Tree, Turn

Spell = Callable[[str], tuple[int, ...]]

SYSTEM = "You are in a kitchen."


def answered(renderer: Renderer, conversation: Conversation, prompt: Prompt, reply: Sequence[int], turns: list[Turn]) -> Turn:
    """Adds a sampled turn with the ids `reply` to the conversation and to `turns`."""
    turn = Turn(
        id=f"0.{len(turns)}",
        parent=turns[-1].id if turns else None,
        extends=prompt.extends,
        fresh=prompt.fresh,
        prompt_ids=prompt.ids,
        completion_ids=tuple(reply),
        logprobs=(-1.0,) * len(reply),
        text=renderer.text(reply),
        draw=Draw("base"),
    )
    conversation.add(turn)
    turns.append(turn)
    return turn


@pytest.fixture(scope="module")
def renderer(chat_tokenizer: Callable[[str], Any]) -> Renderer:
    return Renderer(chat_tokenizer("smollm2"))


@pytest.fixture(scope="module")
def spell(chat_tokenizer: Callable[[str], Any], renderer: Renderer) -> Spell:
    """A reply a character a token, as no tokenizer would split it, with its stop token."""
    tokenizer = chat_tokenizer("smollm2")

    def spelt(text: str) -> tuple[int, ...]:
        return (*(tokenizer.encode(letter, add_special_tokens=False)[0] for letter in text), renderer.end_of_turn_id)

    return spelt


def play(
    renderer: Renderer, spell: Spell, overflow: Overflow, steps: int, *, max_context: int, reserve: int
) -> tuple[Conversation, list[Turn], list[tuple[int, ...]]]:
    """Plays until `steps` turns are sampled; returns what was asked too."""
    conversation = Conversation(renderer, SYSTEM, max_context=max_context, reserve=reserve, overflow=overflow)
    turns: list[Turn] = []
    seen: list[tuple[int, ...]] = []
    for step in range(steps):
        prompt = conversation.observe(f"observation {step}")
        seen.append(conversation.context_ids)
        if prompt.asks_summary:
            answered(renderer, conversation, prompt, spell(f"summary {step}"), turns)
            prompt = conversation.observe(f"observation {step}")
            seen.append(conversation.context_ids)
        answered(renderer, conversation, prompt, spell(f"reply {step}"), turns)
    return conversation, turns, seen


def test_stop_raises_when_prompt_and_reserve_do_not_fit(renderer: Renderer, spell: Spell) -> None:
    length = len(renderer.start(SYSTEM, "observation 0"))
    conversation = Conversation(renderer, SYSTEM, max_context=length + 10, reserve=10)
    prompt = conversation.observe("observation 0")
    with pytest.raises(ContextFull) as full:
        Conversation(renderer, SYSTEM, max_context=length + 9, reserve=10).observe("observation 0")
    assert (full.value.needed, full.value.limit) == (length + 10, length + 9)
    answered(renderer, conversation, prompt, spell("look"), [])
    before = conversation.context_ids
    with pytest.raises(ContextFull):
        conversation.observe("observation 1")
    assert conversation.context_ids == before


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(max_context=st.integers(150, 260), steps=st.integers(1, 12))
def test_no_policy_ever_exceeds_the_context(renderer: Renderer, spell: Spell, max_context: int, steps: int) -> None:
    for overflow in ("stop", "window", "summarise"):
        try:
            _, turns, seen = play(renderer, spell, overflow, steps, max_context=max_context, reserve=15)
        except ContextFull:
            continue
        tree = Tree("t", "t", "e", "train", turns=tuple(turns))
        for turn, ids in zip(turns, seen, strict=True):
            assert tuple(tree.context_ids(turn.id)) == ids
            assert len(ids) + 15 <= max_context


def test_a_window_keeps_the_task_and_the_latest_turns_in_their_own_ids(renderer: Renderer, spell: Spell) -> None:
    conversation, turns, seen = play(renderer, spell, "window", 12, max_context=260, reserve=20)
    fresh = [index for index, turn in enumerate(turns) if turn.fresh == "window"]
    assert fresh and conversation.fresh_counts == {"start": 1, "window": len(fresh)}
    first = fresh[0]
    text = renderer.decode(seen[first])
    assert "observation 0\n\n" + WINDOW_NOTE in text
    assert f"observation {first}<" in text and f"reply {first - 1}<" in text
    assert "observation 1<" not in text and "reply 0" not in text
    reply = turns[first - 1].completion_ids
    assert any(seen[first][start : start + len(reply)] == reply for start in range(len(seen[first])))
    assert turns[first].prompt_ids == seen[first] and turns[first].extends is None
    # Kept turns are context, and trained on once only, where they were sampled.
    tree = Tree("t", "t", "e", "train", turns=tuple(turns))
    masked = sum(sum(segment_ids(segment).mask) for segment in tree.segments(turns[-1].id))
    assert masked == sum(len(turn.completion_ids) for turn in turns)
    assert TRAINS["window"]


def test_a_window_is_not_moved_at_every_turn(renderer: Renderer, spell: Spell) -> None:
    _, turns, _ = play(renderer, spell, "window", 14, max_context=260, reserve=20)
    fresh = [index for index, turn in enumerate(turns) if turn.fresh == "window"]
    assert len(fresh) >= 2
    assert all(later - earlier > 1 for earlier, later in itertools.pairwise(fresh))


def test_a_summary_is_sampled_like_any_turn_and_then_stands_for_the_past(renderer: Renderer, spell: Spell) -> None:
    conversation, turns, seen = play(renderer, spell, "summarise", 10, max_context=400, reserve=20)
    asked = [index for index, turn in enumerate(turns) if turn.text.startswith("summary")]
    assert asked and conversation.fresh_counts == {"start": 1, "summary": len(asked)}
    first = asked[0]
    question, after = turns[first], turns[first + 1]
    assert question.extends == turns[first - 1].id
    assert renderer.decode(question.prompt_ids).count(SUMMARY_QUESTION) == 1
    assert after.fresh == "summary" and after.parent == question.id
    text = renderer.decode(seen[first + 1])
    assert f"observation 0\n\n{SUMMARY_QUESTION}<" in text and question.text in text and "reply" not in text
    assert text.count(f"observation {question.text.split()[1]}<") == 1  # the observation that did not fit is shown now
    ids = question.completion_ids[:-1]
    assert any(after.prompt_ids[start : start + len(ids)] == ids for start in range(len(after.prompt_ids)))
    assert TRAINS["summary"]


def test_a_full_context_without_a_way_out_stops_the_other_policies_too(renderer: Renderer, spell: Spell) -> None:
    for overflow in ("window", "summarise"):
        with pytest.raises(ContextFull):
            play(renderer, spell, overflow, 9, max_context=len(renderer.start(SYSTEM, "observation 0")) + 21, reserve=20)


def test_forks_go_their_own_ways(renderer: Renderer, spell: Spell) -> None:
    conversation = Conversation(renderer, SYSTEM)
    turns: list[Turn] = []
    answered(renderer, conversation, conversation.observe("observation 0"), spell("stem"), turns)
    prompt = conversation.observe("observation 1")
    other = conversation.fork()
    answered(renderer, conversation, prompt, spell("left"), list(turns))
    answered(renderer, other, prompt, spell("right"), list(turns))
    conversation.observe("observation 2")
    other.observe("observation 3")
    left, right = renderer.decode(conversation.context_ids), renderer.decode(other.context_ids)
    assert "stem" in left and "left" in left and "observation 2" in left and "right" not in left
    assert "stem" in right and "right" in right and "observation 3" in right and "left" not in right
    assert conversation.fresh_counts == other.fresh_counts == {"start": 1}


def test_observing_again_replaces_the_pending_prompt(renderer: Renderer, spell: Spell) -> None:
    conversation = Conversation(renderer, SYSTEM)
    conversation.observe("first try")
    prompt = conversation.observe("second try")
    assert prompt.ids == renderer.start(SYSTEM, "second try")
    turns: list[Turn] = []
    answered(renderer, conversation, prompt, spell("go"), turns)
    conversation.observe("x")
    prompt = conversation.observe("y")
    assert prompt.ids == renderer.bridge(turns[0].completion_ids, "y")


def test_a_turn_that_was_sampled_from_another_prompt_is_refused(renderer: Renderer, spell: Spell) -> None:
    conversation = Conversation(renderer, SYSTEM)
    stale = conversation.observe("a")
    conversation.observe("b")
    with pytest.raises(ValueError, match="not sampled from the pending prompt"):
        answered(renderer, conversation, stale, spell("go"), [])
    conversation = Conversation(renderer, SYSTEM)
    with pytest.raises(ValueError, match="no prompt is pending"):
        answered(renderer, conversation, stale, spell("go"), [])


def test_a_conversation_of_another_seat_says_so(renderer: Renderer) -> None:
    assert Conversation(renderer, SYSTEM).start("your move", "seat").fresh == "seat"
