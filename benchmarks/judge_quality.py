"""How well a model finds the first error of an episode: the critic `first_error` against errors that were planted.

    python -m benchmarks.judge_quality --out benchmarks/results/judge_quality.json

Demonstrations of textcraft are played; in each one action is replaced by an action of another task that makes the episode fail
(`agentloop.evaluation.planted`). Then the critic walks the clean and the planted episodes, asked of the model and of judges that need none:
one that always says Good, one that always says Bad (and so always names the first step), and one that says Bad by chance, as often as the
model does. What a judge is worth is what it has beyond these. Precision, recall and false alarms are those of
`agentloop.evaluation.judge_quality`; intervals are 95 %, clustered by task.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from agentloop.critic import AskSettings, EngineRespondent, FirstError, JudgeProgress, ModelJudge
from agentloop.critic.answer import Form
from agentloop.critic.respondent import Request, Respondent
from agentloop.engine.open import open_engine
from agentloop.engine.settings import EngineSettings
from agentloop.environment.base import Task
from agentloop.environment.pool import EnvironmentPool
from agentloop.environment.registry import find
from agentloop.evaluation.demonstrated import demonstrated
from agentloop.evaluation.intervals import Estimate
from agentloop.evaluation.judge_quality import JudgeQuality, judge_quality
from agentloop.evaluation.planted import OtherActions, Planter, planted_error
from agentloop.model import resolve
from agentloop.sampling.choice import frozen_tasks
from agentloop.trace.episode import ended
from agentloop.trace.render import Renderer
from agentloop.trace.tree import Draw, Tree, Turn
from agentloop.trace.verdict import BAD, GOOD, steps

ENVIRONMENT = "textcraft"
OPTIONS = {"depth": 2}
SPLIT = "dev"
SETTINGS = AskSettings(temperature=0.0, max_tokens=48, concurrency=16)
TIMEOUT = 3600.0
"""Seconds; a busy machine without vLLM's prefix cache needs minutes for an answer."""
CHANCES = 50
"""Times that the judge by chance walks all episodes; its shares are means over them."""


@dataclass(frozen=True)
class Saying:
    """A respondent that is no model: what it says is a function of the seed alone."""

    say: Callable[[int], str]

    def open(self) -> Saying:
        return self

    def fits(self, text: str, max_tokens: int, form: Form) -> bool:
        return True

    async def ask(self, text: str, request: Request) -> Turn:
        said = f"Judgement: {self.say(request.seed)}"
        return Turn(
            request.turn, request.parent, None, (), (), None, said, Draw("nobody", 0.0, kind="foreign"), fresh="critic", seat="critic"
        )


async def planted_trees(count: int) -> list[Tree]:
    """Clean and planted episodes of `count` tasks, fewer where no replacement does harm."""
    async with EnvironmentPool(find(ENVIRONMENT), OPTIONS, 1) as pool:
        tasks: Sequence[Task] = await pool.tasks(SPLIT)
        show = find(ENVIRONMENT).make(**OPTIONS).demonstration
        trees = [tree async for tree in demonstrated(tasks, show, pool, environment=ENVIRONMENT, split=SPLIT)]
        chosen = {task.id for task in frozen_tasks(tasks, count)}
        planter = Planter(pool, OtherActions.of(trees))
        return [tree async for tree in planter.plant(tree for tree in trees if tree.task in chosen)]


async def walked(trees: Sequence[Tree], respondent: Respondent, *, stage: str, progress: JudgeProgress) -> list[Tree]:
    """The trees with the critic's verdicts. Questions that were not answered are in `progress`, and their episodes are not walked."""
    judge = ModelJudge(FirstError(paths="all"), respondent, SETTINGS, stage=stage, progress=progress)
    found = await asyncio.gather(*(judge.judge(tree) for tree in trees))
    return [one.tree for one in found]


def told(quality: JudgeQuality) -> dict[str, Any]:
    """What was found, as JSON."""
    return asdict(quality) | {"words": quality.in_words()}


async def of_nobody(trees: Sequence[Tree], say: Callable[[int], str], stage: str) -> JudgeQuality:
    """The quality of a judge that is no model."""
    return judge_quality(await walked(trees, Saying(say), stage=stage, progress=JudgeProgress(stage, len(trees))))


async def by_chance(trees: Sequence[Tree], share: float) -> dict[str, Any]:
    """Mean shares of a judge that says Bad with this probability, whatever it is asked."""

    def say(seed: int) -> str:
        return BAD if random.Random(seed).random() < share else GOOD

    found = [await of_nobody(trees, say, f"chance{number}") for number in range(CHANCES)]

    def mean(shares: list[Estimate | None]) -> float | None:
        values = [share.value for share in shares if share is not None]
        return statistics.fmean(values) if values else None

    names = ("precision", "recall", "false_alarms")
    return {"share_of_bad": share, "walks": CHANCES} | {name: mean([getattr(one, name) for one in found]) for name in names}


async def measure(count: int, kind: str) -> dict[str, Any]:
    """All that is measured, as JSON."""
    trees = await planted_trees(count)
    model = resolve("smollm2-135m")
    renderer = Renderer(AutoTokenizer.from_pretrained(model.path))
    options = {"kind": kind, "max_model_len": 2048, "concurrency": SETTINGS.concurrency, "request_timeout": TIMEOUT}
    settings = EngineSettings.of(options)
    progress = JudgeProgress("model", len(trees))
    with tempfile.TemporaryDirectory() as folder:
        async with open_engine(settings, model.path, adapters=0, work_dir=Path(folder)) as engine:
            begun = time.monotonic()
            judged = await walked(trees, EngineRespondent(engine, renderer), stage="model", progress=progress)
            seconds = time.monotonic() - begun
            info = engine.info
    quality = judge_quality(judged)
    spent = {name: getattr(progress, name) for name in ("asked", "again", "unreadable", "shortened", "prompt", "cached", "generated")}
    answers = sum(progress.labels.values()) + progress.unreadable
    lengths = Counter(len(steps(tree, leaf.id)) for tree in trees for leaf in ended(tree))
    places = Counter(
        place
        for tree in trees
        for leaf in ended(tree)
        for place, turn in enumerate(steps(tree, leaf.id), 1)
        if turn is planted_error(tree, leaf.id)
    )
    return {
        "engine": {"kind": info.kind, "dtype": info.dtype, "versions": info.versions},
        "episodes": {"tasks": len(trees), "lengths": dict(sorted(lengths.items())), "planted_at_step": dict(sorted(places.items()))},
        "smollm2-135m": told(quality)
        | {"labels": dict(progress.labels), "failures": dict(progress.failures), "seconds": round(seconds, 1)}
        | spent,
        "always Good": told(await of_nobody(trees, lambda seed: GOOD, "good")),
        "always Bad (the first step)": told(await of_nobody(trees, lambda seed: BAD, "bad")),
        "Bad by chance, as often as the model": await by_chance(trees, progress.labels[BAD] / answers),
    }


def main() -> None:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--engine", choices=("vllm", "transformers"), default="vllm")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    found = asyncio.run(measure(arguments.tasks, arguments.engine))
    result = {
        "command": f"python -m benchmarks.judge_quality --tasks {arguments.tasks} --engine {arguments.engine}",
        "machine": platform.machine(),
        "versions": {name: metadata.version(name) for name in ("transformers", "torch")},
        "environment": {"id": ENVIRONMENT, **OPTIONS, "split": SPLIT},
        "asked": asdict(SETTINGS),
        "judges": found,
    }
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    for name, quality in found.items():
        print(name, quality.get("words", quality))


if __name__ == "__main__":
    main()
