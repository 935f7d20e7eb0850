"""Rows as a policy-gradient training takes them: ids, what is trained, behaviour log-probabilities and advantages, each refused or left out
and counted where it cannot be what the loss takes it for.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from agentloop.dataset.row import Row
from agentloop.dataset.row_file import open_rows
from agentloop.errors import Mistake, RunFailed
from agentloop.training.job import TrainingJob
from agentloop.training.policy_settings import PolicySettings
from agentloop.training.replay import chosen
from agentloop.training.row_data import IGNORED

BASE = "base"


@dataclass(frozen=True, slots=True)
class PolicyRow:
    """One row. What belongs to trained ids has one entry for each of them, in their order; N is their number.

    Attributes:
        input_ids: The row's ids; shape (T,).
        labels: The id where it is trained on, else `IGNORED`; shape (T,).
        old_logprobs: Log-probabilities that ratios are taken against, in nats; shape (N,); None for a loss without a ratio.
        advantages: Shape (N,).
        group: The tree that the row is of: what was compared with each other.
        replayed: Whether it comes from a store.
    """

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    old_logprobs: tuple[float, ...] | None
    advantages: tuple[float, ...]
    group: str = ""
    replayed: bool = False

    @property
    def trained(self) -> int:
        """N, how many ids the loss sees."""
        return len(self.advantages)


@dataclass(frozen=True, slots=True)
class PolicyData:
    """What a training reads.

    Attributes:
        rows: New rows, in the order of their ids, then those that are replayed.
        temperature: Of the distribution that was sampled from, which log-probabilities are of.
        skipped: Rows left out as too long.
        left_out: What else was left out, by reason.
        baseline: What replayed rows were recalibrated by; None if none were.
    """

    rows: tuple[PolicyRow, ...]
    temperature: float
    skipped: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    baseline: float | None = None

    @property
    def replayed(self) -> int:
        """How many rows come from a store."""
        return sum(row.replayed for row in self.rows)


def load_policy_rows(job: TrainingJob, settings: PolicySettings) -> PolicyData:
    """The job's rows, and those of its store that are replayed.

    Raises:
        Mistake: Rows without advantages; rows without log-probabilities where the loss has a ratio; rows of several temperatures, or drawn
            greedily; weights; rows that are too long where the job refuses them.
        RunFailed: There is nothing to train on.
    """
    left_out: Counter[str] = Counter()
    rows, skipped = _fitting(_open(job.rows, job), job)
    fresh = _fresh(rows, settings, left_out)
    if not fresh:
        told = ", ".join([f"{skipped} skipped as too long", *(f"{count} {reason}" for reason, count in left_out.items())])
        raise RunFailed(f"no rows to train on in {', '.join(job.rows)} ({told}); sample more tasks, or more samples of each")
    again, baseline = _replayed(job, settings, {row.id for row in rows}, left_out)
    if job.max_rows is not None and len(fresh) > job.max_rows:
        drawn = sorted(random.Random(job.seed).sample(range(len(fresh)), job.max_rows))
        fresh = [fresh[index] for index in drawn]
    for row in (*fresh, *again):
        _check(row, settings)
    made = [_policy_row(row, row.advantages or (), settings) for row in fresh]
    for row in again:
        # An advantage that is worked out anew is the whole row's; one that is kept may differ from turn to turn.
        values = row.advantages or () if baseline is None else [row.reward - baseline] * len(row.input_ids)
        made.append(_policy_row(row, values, settings, replayed=True))
    return PolicyData(tuple(made), _temperature([*fresh, *again]), skipped, left_out, baseline)


def _open(paths: Iterable[str], job: TrainingJob) -> list[Row]:
    found = [row for path in paths for row in open_rows(path) if job.role is None or row.role == job.role]
    return sorted({row.id: row for row in found}.values(), key=lambda row: row.id)


def _fitting(rows: Sequence[Row], job: TrainingJob) -> tuple[list[Row], int]:
    """Rows that are not too long, and how many are."""
    fitting = [row for row in rows if job.max_length is None or len(row.input_ids) <= job.max_length]
    skipped = len(rows) - len(fitting)
    if skipped and job.too_long == "refuse":
        raise Mistake(
            f"{skipped} of {len(rows)} rows are longer than max_length, and rows are never cut",
            found=f"max_length {job.max_length}",
            expected=f"{max(len(row.input_ids) for row in rows)} or more (the longest row), or too_long: skip",
        )
    return fitting, skipped


def _fresh(rows: Sequence[Row], settings: PolicySettings, left_out: Counter[str]) -> list[Row]:
    """Rows whose adapter is recent enough."""
    if settings.max_staleness is None:
        return list(rows)
    present = iteration_of(settings.version)
    kept = [row for row in rows if present - iteration_of(row.adapter) <= settings.max_staleness]
    left_out["stale rows"] += len(rows) - len(kept)
    return kept


def iteration_of(adapter: str) -> int:
    """The iteration that made an adapter, from its versioned name ROLE-ITERATION-HASH; -1 is the base.

    Raises:
        Mistake: The name is not one.
    """
    if adapter == BASE:
        return -1
    parts = adapter.rsplit("-", 2)
    if len(parts) != 3 or not parts[1].isdigit():
        raise Mistake("max_staleness needs versioned names of adapters", found=adapter, expected="ROLE-ITERATION-HASH, or base")
    return int(parts[1])


def _replayed(job: TrainingJob, settings: PolicySettings, new: set[str], left_out: Counter[str]) -> tuple[list[Row], float | None]:
    """Rows of the store to train on once more, and the baseline that takes the place of theirs; new rows are not among them."""
    replay = settings.replay
    if replay is None or replay.weight == 0:
        return [], None
    stored, too_long = _fitting([row for row in _open(replay.rows, job) if row.id not in new], job)
    left_out["stored rows that are too long"] += too_long
    return chosen(stored, replay, seed=f"{job.seed}/replay")


def _check(row: Row, settings: PolicySettings) -> None:
    if row.weight != 1.0:
        raise Mistake(f"row {row.id} has a weight, which this training method does not know", found=row.weight, expected="1.0")
    if row.mask and row.mask[0]:
        raise Mistake(f"row {row.id} trains on its first id, which nothing precedes", expected="mask[0] == 0")
    if row.advantages is None:
        raise Mistake(f"row {row.id} has no advantages", expected="rows of build: {dataset: advantage}")
    if settings.loss == "reinforce":
        return
    if row.authored or row.logprobs is None:
        raise Mistake(
            f"row {row.id} is no plain draw of a policy, so it has no importance ratio",
            expected="loss: reinforce, or rows of build: {dataset: advantage, draws: policy}",
        )
    wrong = next((p for p, m in zip(row.logprobs, row.mask, strict=True) if m and not (math.isfinite(p) and p <= 1e-6)), None)
    if wrong is not None:
        raise Mistake(f"row {row.id} has a log-probability that cannot be one", found=wrong, expected="a finite number, at most 0")


def _temperature(rows: Sequence[Row]) -> float:
    """The one temperature of all rows."""
    found = sorted({row.temperature for row in rows})
    if len(found) > 1:
        raise Mistake("rows of several temperatures cannot share a training", found=found, expected="one temperature in 'sample'")
    if found[0] <= 0:
        raise Mistake("rows were drawn greedily: there is no distribution to improve", found="temperature 0", expected="more than 0")
    return found[0]


def _policy_row(row: Row, advantages: Sequence[float], settings: PolicySettings, *, replayed: bool = False) -> PolicyRow:
    old = None if settings.loss == "reinforce" or row.logprobs is None else _of_trained(row.logprobs, row.mask)
    labels = tuple(token if trains else IGNORED for token, trains in zip(row.input_ids, row.mask, strict=True))
    return PolicyRow(row.input_ids, labels, old, _of_trained(advantages, row.mask), row.provenance.tree, replayed)


def _of_trained(values: Sequence[float], mask: Sequence[int]) -> tuple[float, ...]:
    return tuple(value for value, trains in zip(values, mask, strict=True) if trains)
