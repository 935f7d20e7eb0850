"""Small trees that are told in words, and a judge that is a function of the question's text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from agentloop.critic import AskSettings, EngineRespondent, ModelJudge
from agentloop.critic.base import Critic
from agentloop.critic.progress import JudgeProgress
from agentloop.engine.base import GenerationRequest
from agentloop.engine.scripted import ScriptedEngine
from agentloop.trace.render import Renderer
from agentloop.trace.tree import Draw, Tree, Turn
from tests.sampling.world import CharacterTokenizer

Script = Callable[[str], str]
"""From the question, as the judge sees it, to its answer."""


def grow(*paths: Sequence[str], rewards: Sequence[float] | None = None, cut: Sequence[int] = (), seed: int = 3, **options: object) -> Tree:
    """A tree of episodes, each told by its actions; equal beginnings are shared. The observation after "x" is "saw x".

    Args:
        paths: Actions of each episode.
        rewards: Return of each episode, given at its end; 0 if None. One of 1 or more is a success.
        cut: Numbers of the episodes that were cut short.
    """
    turns: dict[tuple[str, ...], Turn] = {}
    for number, path in enumerate(paths):
        for depth, action in enumerate(path):
            key = tuple(path[: depth + 1])
            before = turns.get(key[:-1])
            last = depth == len(path) - 1
            reward = (rewards[number] if rewards is not None else 0.0) if last else 0.0
            turns.setdefault(
                key,
                Turn(
                    id=f"{number}.{depth}",
                    parent=before.id if before else None,
                    extends=before.id if before else None,
                    fresh=None if before else "start",
                    prompt_ids=(5, 6),
                    completion_ids=tuple(map(ord, action)),
                    logprobs=(-0.5,) * len(action),
                    text=action,
                    draw=Draw("base"),
                    action=action,
                    observation=f"saw {action}",
                    reward=reward,
                    done=last and number not in cut,
                    truncated="turns" if last and number in cut else None,
                    success=reward >= 1.0 and number not in cut if last else None,
                ),
            )
    values: dict[str, object] = {"id": "000/trees/t", "task": "t", "environment": "toy", "split": "train", "samples": (0,)}
    values |= {"system_prompt": "Do the right thing.", "first_observation": "a door", "seed": seed}
    return Tree(turns=tuple(turns.values()), **(values | options))  # type: ignore[arg-type]


class Judge(ScriptedEngine):
    """An engine whose script sees the question alone; it remembers its requests."""

    def __init__(self, script: Script, *, max_model_len: int = 1 << 20) -> None:
        self.requests: list[GenerationRequest] = []

        def answer(prompt: str, request: GenerationRequest) -> str:
            self.requests.append(request)
            return script(prompt)

        super().__init__(CharacterTokenizer(), answer, max_model_len=max_model_len)


def respondent(engine: ScriptedEngine, **options: object) -> EngineRespondent:
    return EngineRespondent(engine, Renderer(CharacterTokenizer()), **options)  # type: ignore[arg-type]


def latest(prompt: str) -> str:
    """The action that a first-error question is about."""
    return prompt.split("The latest action, step ", 1)[1].split("\n", 2)[1].removeprefix("> ")


async def judged(tree: Tree, critic: Critic, script: Script, *, stage: str = "judge", **settings: object) -> Tree:
    """The tree with the critic's verdicts by a scripted judge that must not fail."""
    judge = ModelJudge(critic, respondent(Judge(script)), AskSettings(**settings), stage=stage, progress=JudgeProgress(stage, 1))  # type: ignore[arg-type]
    result = await judge.judge(tree)
    assert result.failures == ()
    return result.tree


def verdicts(tree: Tree) -> dict[str, tuple[float | None, str | None]]:
    """(value, label) by judged turn."""
    return {verdict.turn: (verdict.value, verdict.label) for verdict in tree.verdicts}
