"""A small world for tests of sampling: a tokenizer of characters, an engine that is a pure function of its requests, a toy environment, a
sink in memory. Nothing here waits for a clock: what waits, waits for an event that the test sets."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from agentloop.engine.base import Engine, EngineFailure, EngineInfo, Generation, GenerationRequest
from agentloop.environment.base import Environment, StepResult, Task
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import EnvironmentSpec
from agentloop.sampling.group import Origin, SamplingReport, sample_groups
from agentloop.sampling.settings import SampleSettings
from agentloop.trace.render import Renderer
from agentloop.trace.tree import Tree

START, END = "\x01", "\x02"
ORIGIN = Origin(stage="trees", environment="toy", split="train", seed=7)


class CharacterTokenizer:
    """One id a character; the two control characters open and close a message."""

    eos_token = END
    eos_token_id = 2
    all_special_ids = [1, 2]
    added_tokens_decoder = {1: START, 2: END}

    def get_chat_template(self) -> str:
        return "messages"

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> str:
        text = "".join(f"{START}{said['role']}\n{said['content']}{END}" for said in conversation)
        return text + (f"{START}assistant\n" if kwargs.get("add_generation_prompt") else "")

    def encode(self, text: str, *, split_special_tokens: bool = False, **kwargs: Any) -> list[int]:
        forged = {START: [ord("S")], END: [ord("E")]} if split_special_tokens else {}
        return [token for letter in text for token in forged.get(letter, [ord(letter)])]

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> str:
        return "".join(map(chr, token_ids))

    def convert_ids_to_tokens(self, ids: int) -> str:
        return chr(ids)


class FunctionEngine:
    """Answers with a pure function of the request (letters drawn by prompt, seed and adapter), and remembers every request and answer.

    `before` is awaited before each answer, so that a test decides who is answered when.
    """

    def __init__(
        self, *, before: Callable[[GenerationRequest], Awaitable[None]] | None = None, length: int = 6, max_model_len: int = 4096
    ) -> None:
        self.info = EngineInfo("scripted", "toy", "float32", max_model_len, 0, {})
        self.requests: list[GenerationRequest] = []
        self.answers: dict[GenerationRequest, Generation] = {}
        self._before = before
        self._length = length

    async def generate(self, request: GenerationRequest) -> Generation:
        self.requests.append(request)
        if self._before is not None:
            await self._before(request)
        answer = self._answer(request)
        self.answers[request] = answer
        return answer

    def _answer(self, request: GenerationRequest) -> Generation:
        key = repr((request.prompt_ids, request.seed, request.adapter, request.temperature))
        draw = random.Random(hashlib.sha256(key.encode()).digest())
        letters = [ord(draw.choice("abcdef")) for _ in range(draw.randint(1, self._length))]
        ids = tuple([*letters, 2][: request.max_tokens])
        logprobs = tuple(-draw.random() for _ in ids)
        return Generation(ids, logprobs, "stop" if ids[-1] == 2 else "length", len(request.prompt_ids), len(request.prompt_ids) // 2)

    async def score(self, ids: tuple[int, ...], adapter: str = "base") -> tuple[float, ...]:
        return tuple(0.0 for _ in ids[1:])

    async def load_adapter(self, adapter: Any) -> None:
        return None

    async def unload_adapter(self, name: str) -> None:
        return None

    async def adapters(self) -> tuple[str, ...]:
        return ()

    async def close(self) -> None:
        return None


class BrokenEngine(FunctionEngine):
    """Refuses every request whose prompt contains `text`."""

    def __init__(self, text: str, kind: str = "connection", **options: Any) -> None:
        super().__init__(**options)
        self._text, self._kind = text, kind

    async def generate(self, request: GenerationRequest) -> Generation:
        if self._text in "".join(map(chr, request.prompt_ids)):
            raise EngineFailure(self._kind, f"no answer to a prompt with {self._text!r}")
        return await super().generate(request)


class Letters(Environment):
    """Say words until one begins with the task's letter, or until the steps are used up."""

    STEPS = 3
    opened: list[Environment] = []
    closed: list[Environment] = []

    def __init__(self) -> None:
        type(self).opened.append(self)

    def tasks(self, split: str) -> list[Task]:
        return [Task(f"{split}-{number}", {"letter": "abcdef"[number % 6]}) for number in range(12)]

    def reset(self, task: Task) -> Any:
        self.task, self.steps = task, 0
        return f"find {task.data['letter']} ({task.id})"

    def step(self, action: str) -> Any:
        self.steps += 1
        solved = action.startswith(self.task.data["letter"])
        return StepResult(f"no, not {action}", float(solved), solved or self.steps == self.STEPS, info={"step": self.steps})

    def system_prompt(self) -> str:
        return "Say words until one begins with the task's letter."

    def close(self) -> None:
        type(self).closed.append(self)


class Memory:
    """A sink in memory; `order` tells in which order episodes came."""

    def __init__(self, fragments: Sequence[Tree] = ()) -> None:
        self.fragments: list[Tree] = list(fragments)

    @property
    def finished(self) -> set[tuple[str, int]]:
        return {(tree.id, sample) for tree in self.fragments for sample in tree.samples}

    @property
    def order(self) -> list[tuple[str, int]]:
        return [(tree.task, tree.samples[0]) for tree in self.fragments]

    def add(self, fragment: Tree) -> None:
        assert (fragment.id, fragment.samples[0]) not in self.finished, "an episode was kept twice"
        self.fragments.append(fragment)

    def trees(self) -> list[Tree]:
        """Whole trees, by id."""
        ids = sorted({tree.id for tree in self.fragments})
        return [Tree.merge([tree for tree in self.fragments if tree.id == tree_id]) for tree_id in ids]


def tasks(count: int = 4) -> list[Task]:
    """The first tasks of `Letters`."""
    return [Task(f"train-{number}", {"letter": "abcdef"[number % 6]}) for number in range(count)]


@asynccontextmanager
async def pool_of(environment: type[Environment], limit: int = 64, **options: Any) -> AsyncIterator[EnvironmentPool]:
    """A real pool of instances of a class."""

    class Spec(EnvironmentSpec):
        def load(self) -> type[Environment]:
            return environment

    async with EnvironmentPool(Spec("toy", "file", None), {}, limit, **options) as pool:
        yield pool


async def sample(
    environment: type[Environment] = Letters,
    *,
    engine: Engine | None = None,
    sink: Memory | None = None,
    settings: SampleSettings | None = None,
    count: int = 4,
    origin: Origin = ORIGIN,
    limit: int = 64,
    pool_options: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[list[Tree], SamplingReport]:
    """Sample the first `count` tasks; whole trees and the report."""
    sink = sink if sink is not None else Memory()
    async with pool_of(environment, limit, **(pool_options or {})) as pool, asyncio.timeout(60):
        report = await sample_groups(
            tasks(count),
            engine=engine or FunctionEngine(),
            pool=pool,
            renderer=Renderer(CharacterTokenizer()),
            sink=sink,
            settings=settings or SampleSettings(samples=3, max_turns=5, max_tokens=16),
            origin=origin,
            **options,
        )
    return sink.trees(), report
