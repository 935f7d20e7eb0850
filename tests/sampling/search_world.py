"""A world for tests of search: games whose every state, reward and end follows from a hash, a policy that answers by a hash of the history
and the request's seed, and an engine that answers in any order that a test likes."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
from collections.abc import Sequence
from typing import Any

from agentloop.engine.base import Generation, GenerationRequest
from agentloop.environment.base import Environment, StepResult, Task
from agentloop.sampling.report import SamplingReport
from agentloop.sampling.search.forest import SearchSettings, search_trees
from agentloop.sampling.search.settings import Expansion, Limits, MctsSettings
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.render import Renderer
from agentloop.trace.tree import Tree
from tests.sampling.world import ORIGIN, CharacterTokenizer, FunctionEngine, Memory, pool_of

WORDS = ("a", "b", "c", "A", "B", "stay")
"""What the policy can say; "a" and "A" do the same, and so do "b" and "B"."""


def dice(*what: object) -> float:
    """A number in [0, 1) that depends on nothing but `what`."""
    return int.from_bytes(hashlib.sha256(repr(what).encode()).digest()[:6], "big") / 2**48


def said(history: Sequence[str], seed: int | None) -> str:
    """What the policy says after it has said `history`."""
    return WORDS[int(dice("say", tuple(history), seed) * len(WORDS))]


class Game(Environment):
    """A game without end, in which some states are won, lost, or a disaster. Its rules follow from the task."""

    ENDS = 0.3
    DISASTERS = 0.05

    def tasks(self, split: str) -> list[Task]:
        return tasks(20)

    def reset(self, task: Task) -> str:
        self.rules = task.data["rules"]
        self.state: tuple[str, ...] = ()
        return f"rules {self.rules}"

    def step(self, action: str) -> StepResult:
        self.state, observation, reward, done = self.move(self.rules, self.state, action)
        return StepResult(observation, reward, done)

    @classmethod
    def move(cls, rules: int, state: tuple[str, ...], action: str) -> tuple[tuple[str, ...], str, float, bool]:
        """(state, observation, reward, done) after an action."""
        new = (*state, action.lower())
        luck = dice("luck", rules, new)
        if luck < cls.DISASTERS:
            return new, "a disaster", -1.0, luck < cls.DISASTERS / 2
        done = luck < cls.DISASTERS + cls.ENDS
        reward = round(dice("reward", rules, new), 2) if done else 0.0
        return new, f"at {' '.join(new)}", reward, done

    def success(self, total_reward: float) -> bool:
        return total_reward > 0.8

    def system_prompt(self) -> str:
        return "Play."


class Photographed(Game):
    """The same with snapshots."""

    def snapshot(self) -> Any:
        return self.rules, self.state

    def restore(self, state: Any) -> None:
        self.rules, self.state = state


class HistoryEngine(FunctionEngine):
    """Says what `said` says, after a number of turns of the event loop that `delays` draws: so requests come back in any order."""

    def __init__(self, delays: int | None = None, **options: Any) -> None:
        self._random = random.Random(delays)

        async def wait(request: GenerationRequest) -> None:
            for _ in range(self._random.randrange(12)):
                await asyncio.sleep(0)

        super().__init__(before=None if delays is None else wait, **options)

    def _answer(self, request: GenerationRequest) -> Generation:
        history = re.findall("\x01assistant\n([^\x02]*)\x02", "".join(map(chr, request.prompt_ids)))
        ids = (*map(ord, said(history, request.seed)), 2)
        logprobs = tuple(-dice("logprob", request.prompt_ids, request.seed, position) for position in range(len(ids)))
        return Generation(ids, logprobs, "stop", len(request.prompt_ids), len(request.prompt_ids) // 2)

    async def score(self, ids: tuple[int, ...], adapter: str = "base") -> tuple[float, ...]:
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(0)
        return tuple(-1.0 - dice("score", ids[: position + 2]) for position in range(len(ids) - 1))


def tasks(count: int) -> list[Task]:
    """Tasks of `Game`."""
    return [Task(f"game-{number}", {"rules": number}) for number in range(count)]


def mcts(
    *,
    simulations: int = 4,
    width: int = 3,
    depth: int = 5,
    leaves: int = 1,
    exploration: float = 0.25,
    limits: Limits | None = None,
    expansion: dict[str, Any] | None = None,
    **sample: Any,
) -> MctsSettings:
    """Settings of a small search."""
    return MctsSettings(
        SampleSettings(**{"max_turns": depth, "max_tokens": 8, "concurrency": 8, **sample}),
        Expansion(width=width, **(expansion or {})),
        limits or Limits(),
        simulations,
        exploration,
        leaves,
    )


async def search(
    settings: SearchSettings | None = None,
    environment: type[Environment] = Game,
    *,
    engine: Any = None,
    sink: Memory | None = None,
    count: int = 3,
    first: int = 0,
    limit: int = 16,
    pool_options: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[list[Tree], SamplingReport]:
    """Search `count` tasks from the task `first` on; the trees by id, and the report."""
    sink = sink if sink is not None else Memory()
    async with pool_of(environment, limit, **(pool_options or {})) as pool, asyncio.timeout(60):
        report = await search_trees(
            tasks(first + count)[first:],
            engine=engine or HistoryEngine(),
            pool=pool,
            renderer=Renderer(CharacterTokenizer()),
            sink=sink,
            settings=settings or mcts(),
            origin=ORIGIN,
            **options,
        )
    return sink.trees(), report
