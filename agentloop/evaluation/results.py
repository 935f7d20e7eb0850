"""`results.json`: what was measured, of what, and how, complete enough to repeat it and to compare with it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentloop.engine.base import EngineInfo
from agentloop.environment.base import Task
from agentloop.evaluation.benchmark import Evaluation
from agentloop.evaluation.configuration import Configuration
from agentloop.evaluation.expenses import Price
from agentloop.evaluation.measure import SHARES, compare
from agentloop.sampling.prompt import Preface
from agentloop.trace.hash import content_hash, trees_hash
from agentloop.trace.store import read_trees


def results(
    configuration: Configuration,
    evaluations: Mapping[str, Evaluation],
    *,
    folder: Path,
    tasks: Sequence[Task],
    engine: EngineInfo,
    adapter: Mapping[str, Any] | None,
    preface: Preface,
    versions: Mapping[str, str],
    price: Price | None = None,
    seconds: float,
) -> dict[str, Any]:
    """The whole file as a JSON value.

    Args:
        configuration: What was asked for.
        evaluations: What was found, by subject, "adapter" or "base"; the first is what the others are compared with.
        folder: Where the results lie; the trees are named relative to it.
        tasks: What was played; their hash tells whether two results are of the same tasks.
        engine: What played.
        adapter: Name, path and hash of the adapter and what its check found; None for the bare base.
        preface: What preceded the first observations.
        versions: Of the packages that took part.
        price: What tokens cost; None leaves the cost out.
        seconds: Wall-clock seconds of this attempt, the engine's start included.
    """
    found: dict[str, Any] = {
        "configuration": configuration.to_json(),
        "fingerprint": configuration.fingerprint(),
        "tasks": {"count": len(tasks), "hash": content_hash([[task.id, task.data] for task in tasks], without=())},
        "engine": asdict(engine),
        "adapter": None if adapter is None else dict(adapter),
        "versions": dict(versions),
        "prompt": _prompt(preface, evaluations),
        "results": {name: _result(evaluation, folder, price) for name, evaluation in evaluations.items()},
        "seconds": round(seconds, 3),
    }
    first, *others = evaluations
    found["differences"] = {
        f"{first} - {other}": {
            name: asdict(difference) for name, difference in compare(evaluations[first].tally, evaluations[other].tally).items()
        }
        for other in others
    }
    return found


def results_text(found: Mapping[str, Any]) -> str:
    """The text of `results.json`: sorted and indented, with the two numbers of a task on one line."""
    text = json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False)
    return _NUMBERS.sub(lambda pair: f"[{pair[1]}, {pair[2]}]", text) + "\n"


_NUMBERS = re.compile(r"\[\s+(-?[\d.e+-]+),\s+(-?[\d.e+-]+)\s+\]")
"""A pair of numbers over several lines."""


def _result(evaluation: Evaluation, folder: Path, price: Price | None) -> dict[str, Any]:
    report = evaluation.sampling
    sums = evaluation.sums()
    return {
        "measurements": [asdict(measurement) for measurement in evaluation.measurements],
        "expenses": evaluation.expenses.to_json(evaluation.tokens, price),
        "by_task": {name: {task: list(cluster) for task, cluster in by_task.items()} for name, by_task in sums.items()},
        "shares": sorted(name for name in sums if name in SHARES or "@" in name or (name == "reward" and evaluation.tally.binary_reward)),
        "failures": evaluation.failures,
        "tokens": asdict(evaluation.tokens),
        "trees": evaluation.trees.relative_to(folder).as_posix(),
        "trees_hash": trees_hash(evaluation.trees),
        "resumed": 0 if report is None else report.resumed,
        "retried": {} if report is None else report.retried,
        "truncated": dict(evaluation.tally.truncated),
        "seconds": 0.0 if report is None else round(report.seconds, 3),
        "first_failures": {}
        if report is None
        else {kind: failure.traceback or failure.message for kind, failure in report.first_failures.items()},
    }


def _prompt(preface: Preface, evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """The system prompt and the first observation of the first task, and the worked examples: what every episode began with."""
    first = next((tree for evaluation in evaluations.values() for tree in read_trees(evaluation.trees)), None)
    return {
        "system": "" if first is None else first.system_prompt,
        "examples": [{"role": message.role, "content": message.content} for message in preface.examples],
        "first_observation": "" if first is None else first.first_observation,
    }
