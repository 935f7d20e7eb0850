"""What several samples of a task are worth: pass@k (is one of k right?) and maj@k (is the answer that most of k give right?).

pass@k is the unbiased estimator of Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv:2107.03374), section 2.1:
1 - C(n - c, k) / C(n, k) for a task with c successes among n samples, averaged over tasks.

maj@k is self-consistency, Wang et al. 2022 (arXiv:2203.11171): answers that are mathematically the same vote together. Samples without a
final answer have no vote; where classes tie, each counts by its share, as if a coin were thrown. For k below n it is the mean over the
n // k disjoint blocks of k samples in the order they were drawn. It exists where the environment tells each episode's final answer, as
`info["final_answer"]` of the last step.

Episodes that broke are no samples. A task with fewer than k others is not in pass@k and maj@k, whose `tasks` says how many are. Each task
counts once, however many samples it has; intervals are those of `agentloop.evaluation.intervals.proportion`, tasks being the independent
units.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import comb

from agentloop.evaluation.intervals import Cluster, Estimate, proportion
from agentloop.evaluation.math import classes
from agentloop.trace.episode import succeeded
from agentloop.trace.tree import Tree

FINAL_ANSWER = "final_answer"
"""Key of the last step's `info` under which an environment tells the episode's final answer, a text or None."""


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of `k` samples, drawn without replacement from `n` of which `c` succeeded, succeeded.

    Raises:
        ValueError: Unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {c} successes among {n} samples")
    return 1.0 - comb(n - c, k) / comb(n, k)


def majority(votes: Sequence[tuple[int | None, bool]]) -> float:
    """Share of the classes with most votes that is right; 0 where nobody votes.

    Args:
        votes: For each sample, the class of its answer (None: it has none) and whether it succeeded.
    """
    counts = Counter(kind for kind, _ in votes if kind is not None)
    if not counts:
        return 0.0
    most = max(counts.values())
    leading = [kind for kind, count in counts.items() if count == most]
    return sum(sum(right for kind, right in votes if kind == leader) / most for leader in leading) / len(leading)


def ks(samples: int) -> list[int]:
    """The k that are told of so many samples: powers of two from 2 on, and the number itself."""
    powers = [2**power for power in range(1, max(samples, 1).bit_length()) if 2**power < samples]
    return [*powers, samples] if samples > 1 else []


@dataclass
class Samples:
    """What became of each task's samples; trees, or fragments of them, are added one at a time.

    Attributes:
        drawn: By task, for each sample in the order of its tree: whether it succeeded, and its final answer.
        answers: Whether every sample so far came with a final answer or the word that there is none.
    """

    drawn: defaultdict[str, list[tuple[bool, str | None]]] = field(default_factory=lambda: defaultdict(list))
    answers: bool = True

    def add(self, tree: Tree) -> None:
        """Take up the episodes of a tree that did not break."""
        broken = {failure.turn for failure in tree.failures if failure.turn is not None}
        for leaf in tree.leaves():
            if leaf.id in broken:
                continue
            answer = leaf.info.get(FINAL_ANSWER)
            self.answers = self.answers and (FINAL_ANSWER in leaf.info or leaf.truncated is not None)
            self.drawn[f"{tree.environment}/{tree.task}"].append((succeeded(leaf), None if answer is None else str(answer)))

    def sums(self, samples: int | None = None) -> dict[str, dict[str, Cluster]]:
        """For every measure, for every task that has samples enough, a cluster whose mean is the task's value.

        Args:
            samples: The number of samples that were asked for; by default the most that a task has.
        """
        asked = samples or max((len(drawn) for drawn in self.drawn.values()), default=0)
        found = {f"pass@{k}": self._by_task(k, asked, lambda drawn, k=k: _pass(drawn, k)) for k in ks(asked)}  # type: ignore[misc]
        if self.answers:
            votes = {task: _votes(drawn) for task, drawn in self.drawn.items()} if asked > 1 else {}
            for k in ks(asked):
                blocks = {
                    task: [majority(cast[start : start + k]) for start in range(0, len(cast) - k + 1, k)] for task, cast in votes.items()
                }
                found[f"maj@{k}"] = {task: Cluster(len(values), sum(values)) for task, values in blocks.items() if values}
        return {name: by_task for name, by_task in found.items() if by_task}

    def estimates(self, samples: int | None = None) -> dict[str, Estimate]:
        """Every measure with its interval; `n` counts the samples that it is made from."""
        return {name: self._estimate(by_task) for name, by_task in self.sums(samples).items()}

    def _by_task(self, k: int, size: int, value: Callable[[list[tuple[bool, str | None]]], float]) -> dict[str, Cluster]:
        """Every cluster is of one size, so that each task counts once even where an episode broke."""
        return {task: Cluster(size, size * value(drawn)) for task, drawn in self.drawn.items() if len(drawn) >= k}

    def _estimate(self, by_task: Mapping[str, Cluster]) -> Estimate:
        equal = max(cluster.n for cluster in by_task.values())
        found = proportion(Cluster(equal, equal * cluster.total / cluster.n) for _, cluster in sorted(by_task.items()))
        return replace(found, n=sum(len(self.drawn[task]) for task in by_task))


def _pass(drawn: Sequence[tuple[bool, str | None]], k: int) -> float:
    return pass_at_k(len(drawn), sum(right for right, _ in drawn), k)


def _votes(drawn: Sequence[tuple[bool, str | None]]) -> list[tuple[int | None, bool]]:
    return list(zip(classes([answer for _, answer in drawn]), [right for right, _ in drawn], strict=True))
