"""Rubric: a score for each episode."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agentloop.critic import Rubric
from agentloop.critic.base import Answer
from agentloop.trace.verdict import UNPARSABLE
from tests.critic.world import grow, judged, verdicts


async def test_every_episode_that_ended_gets_a_score() -> None:
    tree = grow(["a1", "end"], ["a1", "b2"], ["c3"], cut=[2])
    asked: list[str] = []

    def script(prompt: str) -> str:
        asked.append(prompt)
        return f"So be it.\nScore: {7 if '> b2' in prompt else 3}"

    found = await judged(tree, Rubric("polite and short", scale=10), script)
    assert verdicts(found) == {"0.1": (3.0, "3"), "1.1": (7.0, "7"), "2.0": (3.0, "3")}
    assert "The rubric: polite and short" in asked[0] and "from 1 (not met at all) to 10" in asked[0]
    assert "Step 2. The agent:\n> end\nWhat came back:\n> saw end" in asked[0]


@given(scores=st.lists(st.one_of(st.none(), st.integers(1, 5)), min_size=1, max_size=7))
def test_votes_are_averaged_and_the_label_is_a_score_that_was_given(scores: list[int | None]) -> None:
    votes = [Answer(None if score is None else str(score), ()) for score in scores]
    (verdict,) = Rubric("r").verdicts(grow(["a"]), {"0.0": votes})
    read = [score for score in scores if score is not None]
    if not read:
        assert (verdict.value, verdict.label) == (None, UNPARSABLE)
        return
    assert verdict.value is not None and abs(verdict.value - sum(read) / len(read)) < 1e-9
    assert verdict.label in {str(score) for score in read}
