"""A conversation that follows stored turns is the one that they were sampled in, ids and all, whatever the overflow policy did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentloop.trace.render import ContextFull, Conversation, Overflow, Prompt, Renderer
from agentloop.trace.tree import Draw, Tree, Turn

SYSTEM = "You are in a kitchen."


@pytest.fixture(scope="module")
def renderers(chat_tokenizer: Callable[[str], Any]) -> dict[str, Renderer]:
    """One whose template can be appended to, and one whose template drops the thinking of earlier turns."""
    return {name: Renderer(chat_tokenizer(name)) for name in ("smollm2", "qwen3")}


def sampled(renderer: Renderer, prompt: Prompt, text: str, before: list[Turn]) -> Turn:
    """A turn that answers `prompt`, spelt a character a token as no tokenizer would."""
    ids = [renderer._tokenizer.encode(letter, add_special_tokens=False)[0] for letter in text]
    completion = (*ids, renderer.end_of_turn_id)
    return Turn(
        id=f"0.{len(before)}",
        parent=before[-1].id if before else None,
        extends=prompt.extends,
        fresh=prompt.fresh,
        prompt_ids=prompt.ids,
        completion_ids=completion,
        logprobs=(-1.0,) * len(completion),
        text=text,
        draw=Draw("base"),
        action=None if prompt.asks_summary else text,
    )


def play(renderer: Renderer, options: dict[str, Any], thinking: bool) -> tuple[list[Turn], list[Conversation], list[str]]:
    """Twelve steps, or fewer where the context is full: the turns, the conversation after each of them, and what was observed before it."""
    conversation = Conversation(renderer, SYSTEM, **options)
    turns: list[Turn] = []
    stages: list[Conversation] = []
    observations: list[str] = []
    for step in range(12):
        for _ in range(2):
            try:
                prompt = conversation.observe(f"observation {step}")
            except ContextFull:
                return turns, stages, observations
            text = f"summary {step}" if prompt.asks_summary else f"<think>\nhm {step}\n</think>\n\ngo" if thinking else f"reply {step}"
            turn = sampled(renderer, prompt, text, turns)
            conversation.add(turn)
            turns.append(turn)
            stages.append(conversation.fork())
            observations.append(f"observation {step}")
            if not prompt.asks_summary:
                break
    return turns, stages, observations


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    max_context=st.none() | st.integers(150, 450),
    overflow=st.sampled_from(["stop", "window", "summarise"]),
    name=st.sampled_from(["smollm2", "qwen3"]),
    thinking=st.booleans(),
)
def test_following_leads_where_sampling_led(
    renderers: dict[str, Renderer], max_context: int | None, overflow: Overflow, name: str, thinking: bool
) -> None:
    renderer = renderers[name]
    options: dict[str, Any] = {"max_context": max_context, "reserve": 15, "overflow": overflow}
    turns, stages, observations = play(renderer, options, thinking)
    again = Conversation(renderer, SYSTEM, **options)
    for turn, stage, observation in zip(turns, stages, observations, strict=True):
        again.follow(observation, turn)
        assert again.context_ids == stage.context_ids
        assert again.fresh_counts == stage.fresh_counts
        mine, theirs = again.fork(), stage.fork()
        try:
            expected = theirs.observe("and now?")
        except ContextFull:
            with pytest.raises(ContextFull):
                mine.observe("and now?")
        else:
            assert mine.observe("and now?") == expected


def test_the_stored_ids_are_taken_and_not_those_that_the_text_would_have_now(renderers: dict[str, Renderer]) -> None:
    turns, _, observations = play(renderers["smollm2"], {}, thinking=False)
    odd = [replace(turn, prompt_ids=tuple(reversed(turn.prompt_ids))) for turn in turns]  # as another tokenizer might have had them
    conversation = Conversation(renderers["smollm2"], SYSTEM)
    for turn, observation in zip(odd, observations, strict=True):
        conversation.follow(observation, turn)
    tree = Tree("t", "t", "e", "train", turns=tuple(odd))
    assert list(conversation.context_ids) == tree.context_ids(odd[-1].id) + list(odd[-1].completion_ids)


def test_a_turn_that_does_not_continue_is_refused(renderers: dict[str, Renderer]) -> None:
    turns, _, observations = play(renderers["smollm2"], {}, thinking=False)
    conversation = Conversation(renderers["smollm2"], SYSTEM)
    with pytest.raises(ValueError, match="turn 0.1 extends '0.0': it does not continue this conversation"):
        conversation.follow(observations[1], turns[1])
    conversation.follow(observations[0], turns[0])
    with pytest.raises(ValueError, match="turn 0.2 extends '0.1'"):
        conversation.follow(observations[2], turns[2])


def test_a_window_of_other_settings_is_refused(renderers: dict[str, Renderer]) -> None:
    options: dict[str, Any] = {"max_context": 260, "reserve": 20, "overflow": "window"}
    turns, _, observations = play(renderers["smollm2"], options, thinking=False)
    first = next(index for index, turn in enumerate(turns) if turn.fresh == "window")
    conversation = Conversation(renderers["smollm2"], "Another system prompt.", **options)
    for turn, observation in list(zip(turns, observations, strict=True))[:first]:
        conversation.follow(observation, turn)
    with pytest.raises(ValueError, match="sampled from a window that this conversation cannot have had"):
        conversation.follow(observations[first], turns[first])
