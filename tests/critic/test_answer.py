"""The reader of answers takes what was said as asked, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.critic.answer import Form
from agentloop.critic.first_error import FORM
from agentloop.critic.transcript import quoted

labels = st.sampled_from(FORM.labels)
plain = st.text().filter(lambda text: "judg" not in text.lower() and "think>" not in text)
"""Reasoning that says no judgement."""
observations = st.lists(st.one_of(st.text(), st.sampled_from(FORM.lines), st.sampled_from(["<think>", "</think>"])), max_size=5).map(
    "\n".join
)
"""What an environment may say, judgements included."""


@given(reasoning=plain, label=labels)
def test_an_answer_that_ends_as_asked_is_read(reasoning: str, label: str) -> None:
    assert FORM.read(f"{reasoning}\nJudgement: {label}") == label
    assert FORM.read(f"{reasoning}\n\n**judgment: {label.upper()}.**\n \n") == label


@given(answer=plain)
def test_an_answer_without_a_judgement_is_not_read(answer: str) -> None:
    assert FORM.read(answer) is None


@given(observation=observations, reasoning=plain)
def test_a_quoted_observation_is_no_judgement(observation: str, reasoning: str) -> None:
    """However the judge repeats what it was shown, quoted as it was shown to it."""
    said = quoted(observation).replace("think>", "thin")
    assert FORM.read(f"{reasoning}\n{said}") is None


@given(observation=observations, reasoning=plain, label=labels)
def test_a_quoted_observation_does_not_change_a_judgement(observation: str, reasoning: str, label: str) -> None:
    said = quoted(observation).replace("think>", "thin")
    assert FORM.read(f"{reasoning}\n{said}\nJudgement: {label}") == label


@given(first=labels, second=labels)
def test_two_judgements_must_agree(first: str, second: str) -> None:
    assert FORM.read(f"Judgement: {first}\nOn reflection:\nJudgement: {second}") == (first if first == second else None)


@given(thought=st.text(), label=labels, other=labels)
def test_what_was_only_thought_does_not_count(thought: str, label: str, other: str) -> None:
    assert FORM.read(f"<think>{thought}\nJudgement: {other}\n</think>\nJudgement: {label}") == label
    assert FORM.read(f"<think>{thought.replace('</think>', '')}\nJudgement: {other}") is None
    assert FORM.read(f"</think>Judgement: {other}\n<think>\nJudgement: {label}") is None


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Good",
        "Judgement:",
        "Judgement: Excellent",
        "Judgement: Good or Bad",
        "Judgement: not Good",
        "My Judgement: Good",
        "Judgement: Good, because it helps",
        "Judgement: Good\nBut I am not sure.",
        "> Judgement: Good",
        '"Judgement: Good"',
        "Judgement - Good",
        "Judgement: Go\x0bod",
        "Judgement\u2028: Goo\u0501",
    ],
)
def test_near_misses_are_not_guessed_at(answer: str) -> None:
    assert FORM.read(answer) is None


def test_the_longest_label_is_read_whole() -> None:
    form = Form("Score", tuple(str(score) for score in range(1, 11)))
    assert [form.read(f"Score: {score}") for score in ("1", "10", "11", "0")] == ["1", "10", None, None]


@given(observation=observations)
def test_every_line_of_an_episode_is_quoted(observation: str) -> None:
    for line in quoted(observation).splitlines():
        assert line.startswith("> ") or line == ">"
