"""Results held against each other task by task: is the difference more than chance, and may the two be compared at all?

Works on the contents of `results.json` files alone, so that results can be kept and compared without the episodes behind them. Which result
is the better one is asked on the tasks that both have; the test is Student's t on the paired differences of the tasks' means
(`paired_difference`), and tells nothing of a third result: of many comparisons, one in twenty is below 0.05 by chance.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentloop.errors import Mistake, nearest
from agentloop.evaluation.intervals import Cluster, Difference, paired_difference

RESULTS = "results.json"

SUBJECT_OF = frozenset({"model", "adapter", "compare_to", "engine", "engine_options"})
"""Keys of a configuration in which results may differ and still measure the same: who is measured, and on what."""


@dataclass(frozen=True, slots=True)
class Result:
    """One column: a subject (a model with an adapter or without) on one benchmark.

    Attributes:
        name: What it is called in tables, unique among those that are compared.
        benchmark: Id of the benchmark and its split.
        path: Where it was read from.
        configuration: What was asked for.
        measurements: By name: value, low, high, n, tasks.
        by_task: By name, by task: episodes and their sum.
        shares: Names whose values are shares.
        about: Model, adapter, versions, seed, tasks hash, seconds and cost, for people.
    """

    name: str
    benchmark: str
    path: str
    configuration: Mapping[str, Any]
    measurements: Mapping[str, Mapping[str, Any]]
    by_task: Mapping[str, Mapping[str, Cluster]]
    shares: frozenset[str]
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The first result against another on the same benchmark.

    Attributes:
        first: The one that is asked about.
        second: What it is held against.
        differences: First less second, by measurement.
        better: Tasks on which the first has the higher success.
        worse: Tasks on which it has the lower.
        equal: Tasks on which both have the same.
        warnings: Why the comparison may mislead: settings that differ, other tasks.
    """

    first: Result
    second: Result
    differences: Mapping[str, Difference]
    better: int
    worse: int
    equal: int
    warnings: tuple[str, ...]


def read_results(paths: Sequence[Path]) -> list[Result]:
    """All results in these files, or folders with `results.json` in them or one level below (several benchmarks); in this order.

    Raises:
        Mistake: There is none, or a file is not one.
    """
    found: list[Result] = []
    for path in paths:
        for file in _files(path):
            found += _read(file)
    return _named_apart(found)


def by_benchmark(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results of the same benchmark and split together, in the order they first appear."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.benchmark, []).append(result)
    return groups


def compare_results(first: Result, second: Result) -> Comparison:
    """Hold two results of one benchmark against each other. Raises `Mistake` if they have no task in common."""
    ours, theirs = first.by_task.get("success", {}), second.by_task.get("success", {})
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise Mistake(
            f"{first.path} and {second.path} have no task in common", expected="results of one benchmark and split, with by_task in them"
        )
    signs = [ours[task].total / ours[task].n - theirs[task].total / theirs[task].n for task in common]
    differences = {
        name: paired_difference(clusters, second.by_task[name], shares=name in first.shares and name in second.shares)
        for name, clusters in first.by_task.items()
        if clusters.keys() & second.by_task.get(name, {}).keys()
    }
    better, worse = sum(sign > 0 for sign in signs), sum(sign < 0 for sign in signs)
    return Comparison(first, second, differences, better, worse, len(signs) - better - worse, tuple(_warnings(first, second)))


def _warnings(first: Result, second: Result) -> list[str]:
    ours, theirs = first.configuration, second.configuration
    told = [
        f"{name} differs: {ours.get(name)!r} and {theirs.get(name)!r}"
        for name in sorted({*ours, *theirs} - SUBJECT_OF)
        if ours.get(name) != theirs.get(name)
    ]
    hashes = first.about.get("tasks_hash"), second.about.get("tasks_hash")
    if None not in hashes and hashes[0] != hashes[1]:
        told.append("the tasks differ: only those that both have by name are compared, and their data may not be the same")
    return told


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if (path / RESULTS).is_file():
        return [path / RESULTS]
    below = sorted(path.glob(f"*/{RESULTS}")) if path.is_dir() else []
    if not below:
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise Mistake(
            f"there are no results at {str(path)!r}",
            expected=f"a folder with {RESULTS}, as `agentloop eval` makes it, or such a file",
            nearest=None if path.exists() else nearest(path.name, beside),
        )
    return below


def _read(file: Path) -> list[Result]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        configuration, subjects = found["configuration"], found["results"]
        benchmark = f"{Path(configuration['benchmark']).stem} ({configuration['split']})"
        return [
            Result(
                name=_name(configuration, subject),
                benchmark=benchmark,
                path=str(file),
                configuration=configuration,
                measurements={measurement["name"]: measurement for measurement in result["measurements"]},
                by_task={
                    name: {task: Cluster(int(n), float(total)) for task, (n, total) in by_task.items()}
                    for name, by_task in result.get("by_task", {}).items()
                },
                shares=frozenset(result.get("shares", ())),
                about=_about(found, subject, result),
            )
            for subject, result in subjects.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Mistake(f"not the results of an evaluation: {type(error).__name__}: {error}", file=str(file)) from error


def _name(configuration: Mapping[str, Any], subject: str) -> str:
    model = Path(configuration["model"]).name
    return f"{model} + {configuration['adapter'][:8]}" if subject == "adapter" and configuration.get("adapter") else model


def _about(found: Mapping[str, Any], subject: str, result: Mapping[str, Any]) -> dict[str, Any]:
    configuration = found["configuration"]
    return {
        "model": configuration["model"],
        "adapter": configuration.get("adapter") if subject == "adapter" else None,
        "seed": configuration.get("seed"),
        "engine": f"{found['engine']['kind']} ({found['engine']['dtype']})",
        "tasks_hash": (found.get("tasks") or {}).get("hash"),
        "fingerprint": found.get("fingerprint"),
        "versions": found.get("versions", {}),
        "expenses": result.get("expenses", {}),
        "tokens": result.get("tokens", {}),
        "failures": result.get("failures", {}),
        "seconds": result.get("seconds"),
        "prompt": found.get("prompt", {}),
    }


def _named_apart(results: Sequence[Result]) -> list[Result]:
    """Results of one benchmark with one name get the name of their folder behind it, and where that is no help a number."""
    from dataclasses import replace

    named: list[Result] = []
    for result in results:
        alike = [other for other in results if (other.benchmark, other.name) == (result.benchmark, result.name)]
        name = result.name if len(alike) == 1 else f"{result.name} ({Path(result.path).parent.name or result.path})"
        taken = sum((other.benchmark, other.name.partition(" #")[0]) == (result.benchmark, name) for other in named)
        named.append(replace(result, name=name if taken == 0 else f"{name} #{taken + 1}"))
    return named
