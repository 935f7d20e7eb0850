"""How good a first-error critic is: its verdicts held against planted errors (`agentloop.evaluation.planted`).

A critic *flags* an episode where it calls a step Bad, and *hits* where that is the planted step (or within `tolerance` of it).

- precision: of the flagged episodes, clean ones included, the share that it hit;
- recall: of the planted episodes, the share that it hit;
- false alarms: of the clean episodes, the share that it flagged.

Episodes that were not walked to their first Bad step or to their end are in none of them, and are counted. Intervals are 95 % and clustered
by task, like those of every other measurement. A critic that walks only failed episodes (the default of `FirstError`) sees no clean ones;
`paths="all"` shows it these too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from agentloop.evaluation.intervals import Cluster, Estimate, proportion
from agentloop.evaluation.planted import planted_error
from agentloop.trace.episode import ended
from agentloop.trace.tree import Tree
from agentloop.trace.verdict import FIRST_ERROR, UNPARSABLE, first_error, is_walked, steps, verdicts_by_turn


@dataclass(frozen=True, slots=True)
class JudgeQuality:
    """What was found; an estimate is None where nothing counts towards it.

    Attributes:
        precision: Share of flagged episodes that were hit.
        recall: Share of planted episodes that were hit.
        false_alarms: Share of clean episodes that were flagged.
        planted: Planted episodes that were walked.
        clean: Clean episodes that were walked.
        unwalked: Episodes that were not.
        offsets: Of planted episodes, how many steps after the planted one the first Bad step is (negative: before it); "none" where no
            step is Bad.
        unparsable: Steps whose verdict could not be read.
    """

    precision: Estimate | None
    recall: Estimate | None
    false_alarms: Estimate | None
    planted: int
    clean: int
    unwalked: int
    offsets: dict[int | str, int]
    unparsable: int

    def in_words(self) -> str:
        """One line for people."""
        shares = ", ".join(f"{name.replace('_', ' ')} {_told(getattr(self, name))}" for name in ("precision", "recall", "false_alarms"))
        return f"{shares} · {self.planted} planted, {self.clean} clean, {self.unwalked} not walked · unparsable {self.unparsable}"


@dataclass
class _Shares:
    """Sums by task of one share."""

    clusters: defaultdict[str, Cluster] = field(default_factory=lambda: defaultdict(lambda: Cluster(0, 0.0)))

    def add(self, task: str, hit: bool) -> None:
        n, total = self.clusters[task]
        self.clusters[task] = Cluster(n + 1, total + hit)

    def estimate(self) -> Estimate | None:
        return proportion([cluster for _, cluster in sorted(self.clusters.items())]) if self.clusters else None


def judge_quality(trees: Iterable[Tree], *, stage: str | None = None, tolerance: int = 0) -> JudgeQuality:
    """Hold the first-error verdicts (of one judging stage, or of any) against the planted errors.

    Args:
        trees: Judged trees of a `Planter`.
        stage: The judging stage; None takes the last verdict on each step.
        tolerance: How many steps a hit may be away from the planted one.
    """
    precision, recall, alarms = _Shares(), _Shares(), _Shares()
    offsets: Counter[int | str] = Counter()
    walked: Counter[bool] = Counter()
    unwalked = unparsable = 0
    for tree in trees:
        task = f"{tree.environment}/{tree.task}"
        said = verdicts_by_turn(tree, FIRST_ERROR, stage=stage).values()
        unparsable += sum(verdict.label == UNPARSABLE for verdict in said)
        for leaf in ended(tree):
            if not is_walked(tree, leaf.id, stage=stage):
                unwalked += 1
                continue
            places = {turn.id: place for place, turn in enumerate(steps(tree, leaf.id))}
            error, truth = first_error(tree, leaf.id, stage=stage), planted_error(tree, leaf.id)
            offset = None if error is None or truth is None else places[error.id] - places[truth.id]
            hit = offset is not None and abs(offset) <= tolerance
            walked[truth is not None] += 1
            if error is not None:
                precision.add(task, hit)
            if truth is None:
                alarms.add(task, error is not None)
            else:
                recall.add(task, hit)
                offsets["none" if offset is None else offset] += 1
    return JudgeQuality(
        precision=precision.estimate(),
        recall=recall.estimate(),
        false_alarms=alarms.estimate(),
        planted=walked[True],
        clean=walked[False],
        unwalked=unwalked,
        offsets=dict(sorted(offsets.items(), key=lambda item: (isinstance(item[0], str), item[0]))),
        unparsable=unparsable,
    )


def _told(estimate: Estimate | None) -> str:
    if estimate is None:
        return "–"
    interval = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:.2f}, {estimate.high:.2f}]"
    return f"{estimate.value:.2f}{interval}"
