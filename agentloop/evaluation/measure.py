"""What a set of trees says of the agent that played them: success, reward, turns, tokens and failures, each with its interval.

Every leaf of a tree is one episode. How episodes enter:

- an episode that the environment ended counts with what it achieved;
- an episode that started from a node of another tree counts with the return of its whole path, and with the turns and tokens from there;
- an episode that was cut short (`truncated`: turns, context, budget, time, or the environment's own limit) counts as unsuccessful, and
  with the reward, turns and tokens that it had by then;
- an episode that broke (a `Failure`: the environment or the engine gave way) is no outcome of the policy. It enters `failures`, whose n is
  all episodes, and no other number, whose n is those that did not break. None is dropped silently: the two n and the failures by kind are
  kept side by side, and the stage stops when the share of failures exceeds `max_failures`.

Trees are read once, one at a time; what is kept is one small sum for each task.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from agentloop.evaluation.intervals import Cluster, Difference, Estimate, mean, paired_difference, proportion
from agentloop.trace.episode import succeeded
from agentloop.trace.tree import Tree, Truncation

NAMES = ("success", "reward", "turns", "tokens", "failures")
SHARES = frozenset({"success", "failures"})


@dataclass(frozen=True, slots=True)
class Measurement:
    """One number of one evaluation.

    Attributes:
        name: "success" (share of episodes), "reward" (mean return), "turns" (actions) and "tokens" (generated) per episode, or "failures"
            (share of episodes that broke).
        value: The estimate, a mean over episodes.
        low: Lower end of the 95 % interval clustered by task; None where a single task cannot say.
        high: Upper end.
        n: Episodes that it is over.
        tasks: Tasks (clusters) that they belong to.
        stage: Id of the stage that measured; filled in by the caller.
        iteration: Iteration that it belongs to; filled in by the caller.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    n: int
    tasks: int
    stage: str = ""
    iteration: str = ""


@dataclass(frozen=True, slots=True)
class EpisodeScore:
    """What one episode that did not break achieved; see `Measurement` for the fields."""

    success: bool
    reward: float
    turns: int
    tokens: int
    truncated: Truncation | None = None


@dataclass
class Tally:
    """Sums by name and task, to which trees are added one at a time; a task is keyed by its environment and id.

    Attributes:
        sums: For each name, for each task, how many episodes and what they add up to.
        failures: Broken episodes by kind.
        truncated: Episodes that were cut short, by what cut them.
        binary_reward: Whether every return so far was 0 or 1, so that the mean return is a proportion too.
    """

    sums: dict[str, dict[str, Cluster]] = field(default_factory=lambda: {name: {} for name in NAMES})
    failures: Counter[str] = field(default_factory=Counter)
    truncated: Counter[str] = field(default_factory=Counter)
    binary_reward: bool = True

    def add(self, tree: Tree) -> None:
        """Count the episodes of a tree, or of a fragment of one."""
        task = f"{tree.environment}/{tree.task}"
        for score in episode_scores(tree):
            self.binary_reward = self.binary_reward and score.reward in (0.0, 1.0)
            if score.truncated is not None:
                self.truncated[score.truncated] += 1
            for name in NAMES[:4]:
                self._count(name, task, float(getattr(score, name)))
            self._count("failures", task, 0.0)
        for failure in tree.failures:
            self.failures[failure.kind] += 1
            self._count("failures", task, 1.0)

    def _count(self, name: str, task: str, value: float) -> None:
        n, total = self.sums[name].get(task, (0, 0.0))
        self.sums[name][task] = Cluster(n + 1, total + value)

    def measurements(self, *, stage: str = "", iteration: str = "") -> list[Measurement]:
        """All measurements in the order of `NAMES`; a name without a single episode is left out."""
        return [
            Measurement(name, got.value, got.low, got.high, got.n, got.tasks, stage, iteration)
            for name in NAMES
            if (got := self.estimate(name)) is not None
        ]

    def estimate(self, name: str) -> Estimate | None:
        """The estimate of one name; None if no episode counts towards it."""
        clusters = [cluster for _, cluster in sorted(self.sums[name].items())]  # sorted, so that rounding does not depend on who came first
        if not clusters:
            return None
        shares = name in SHARES or (name == "reward" and self.binary_reward)
        return proportion(clusters) if shares else mean(clusters)


def measure(trees: Iterable[Tree], *, stage: str = "", iteration: str = "") -> list[Measurement]:
    """Success, reward, turns, tokens and failures of the episodes in `trees`, in this order; empty if there is no episode."""
    return tally(trees).measurements(stage=stage, iteration=iteration)


def tally(trees: Iterable[Tree]) -> Tally:
    """The sums that `measure` is made from; needed to compare two results task by task."""
    sums = Tally()
    for tree in trees:
        sums.add(tree)
    return sums


def compare(first: Tally, second: Tally) -> dict[str, Difference]:
    """How much `first` is above `second` on the tasks of both, for every name that both have; keyed by name."""
    differences = {}
    for name in NAMES:
        ours, theirs = first.sums[name], second.sums[name]
        if ours.keys() & theirs.keys():
            shares = name in SHARES or (name == "reward" and first.binary_reward and second.binary_reward)
            differences[name] = paired_difference(ours, theirs, shares=shares)
    return differences


def episode_scores(tree: Tree) -> Iterator[EpisodeScore]:
    """One score for each episode of the tree that did not break, in the order of its leaves."""
    broken = {failure.turn for failure in tree.failures if failure.turn is not None}
    for leaf in tree.leaves():
        if leaf.id in broken:
            continue
        path = tree.path(leaf.id)
        yield EpisodeScore(
            success=succeeded(leaf),
            reward=sum(turn.reward for turn in path),
            turns=sum(turn.action is not None for turn in path if not turn.given),
            tokens=sum(len(turn.completion_ids) for turn in path if not (turn.given or turn.authored)),
            truncated=leaf.truncated,
        )
