"""`results.json`: what was measured, of what, and how, complete enough to repeat it and to compare with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentloop.engine.base import EngineInfo
from agentloop.evaluation.benchmark import Evaluation
from agentloop.evaluation.configuration import Configuration
from agentloop.evaluation.measure import compare
from agentloop.sampling.prompt import Preface
from agentloop.trace.hash import trees_hash
from agentloop.trace.store import read_trees


def results(
    configuration: Configuration,
    evaluations: Mapping[str, Evaluation],
    *,
    folder: Path,
    engine: EngineInfo,
    adapter: Mapping[str, Any] | None,
    preface: Preface,
    versions: Mapping[str, str],
    seconds: float,
) -> dict[str, Any]:
    """The whole file as a JSON value.

    Args:
        configuration: What was asked for.
        evaluations: What was found, by subject, "adapter" or "base"; the first is what the others are compared with.
        folder: Where the results lie; the trees are named relative to it.
        engine: What played.
        adapter: Name, path and hash of the adapter and what its check found; None for the bare base.
        preface: What preceded the first observations.
        versions: Of the packages that took part.
        seconds: Wall-clock seconds of this attempt, the engine's start included.
    """
    found: dict[str, Any] = {
        "configuration": configuration.to_json(),
        "fingerprint": configuration.fingerprint(),
        "engine": asdict(engine),
        "adapter": None if adapter is None else dict(adapter),
        "versions": dict(versions),
        "prompt": _prompt(preface, evaluations),
        "results": {name: _result(evaluation, folder) for name, evaluation in evaluations.items()},
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


def _result(evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    report = evaluation.sampling
    return {
        "measurements": [asdict(measurement) for measurement in evaluation.measurements],
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
