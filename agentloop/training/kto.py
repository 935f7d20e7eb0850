"""Kahneman-Tversky optimisation (KTO, arXiv:2402.01306): single rows that are desirable or not, by the return of their episode.

A row's continuation is everything from its first trained id on. Its weight is lambda; the paper's equation 9 says how to balance unequal
numbers. The losses are divided by the number of rows of an optimiser step, over all pieces and processes.

The baseline z0, the divergence of the policy from the reference, is estimated from contexts with another row's continuation (the paper's
section 4.1), over the rows that the processes compute at once: cutting a step into pieces changes the estimate, as it does in TRL. The
other row is the one before in the order of ids; its continuation ends where the longest row of the data does, which only the estimate sees.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import reduce

from agentloop.dataset.row import Row
from agentloop.dataset.row_file import open_rows
from agentloop.errors import Mistake
from agentloop.training.job import Trained, TrainingJob
from agentloop.training.options import at_least, read_options
from agentloop.training.pair_data import DoubleData
from agentloop.training.preference_loss import kto_losses
from agentloop.training.progress import Progress
from agentloop.training.row_data import IGNORED, check_row, labels_of, nothing_to_train_on, select
from agentloop.training.row_trainer import RowTrainer, Scores
from agentloop.training.sequence_batch import TAKES, DoubleCollator, sums
from agentloop.training.sft import assemble, fit


@dataclass(frozen=True, slots=True)
class OutcomeObjective:
    """What is minimised, and the options of a job.

    Attributes:
        beta: How fast gains and losses level off.
        desirable: Least return of a row to follow; the others are to avoid.
    """

    beta: float = 0.1
    desirable: float = 1.0

    def __post_init__(self) -> None:
        at_least("beta", self.beta, 0, above=True)

    @property
    def takes(self) -> tuple[str, ...]:
        """What it needs of a batch."""
        return TAKES

    @property
    def compares(self) -> bool:
        """Whether it needs a reference: always."""
        return True

    def __call__(self, logprobs: torch.Tensor, reference: torch.Tensor | None, batch: Mapping[str, torch.Tensor]) -> Scores:
        """Weighted losses of the rows, shape (N,); whether the policy has moved to the right side of the reference, and how far."""
        assert reference is not None
        own, other = (policy - before for policy, before in zip(sums(logprobs, batch), sums(reference, batch), strict=True))
        weights = batch["weights"]
        baseline = self._baseline(other.detach(), weights)
        losses = kto_losses(own, weights > 0, self.beta, baseline) * weights.abs()
        right = torch.where(weights > 0, own, -own).detach()
        return Scores(losses, {"preferred": (right > 0).float(), "margin": self.beta * right, "divergence": baseline.expand_as(own)})

    @staticmethod
    def _baseline(log_ratios: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Mean over the rows of all processes, fillers left out, and never below zero."""
        real = weights != 0
        total, number = reduce(torch.stack([(log_ratios * real).sum(), real.sum().to(log_ratios)]), "sum")
        return (total / number.clamp(min=1)).clamp(min=0)


def run(job: TrainingJob, work_dir: Path) -> Trained:
    """Train in this process (one of `job.processes`) and save the adapter. Raises what `sft.run` and `load_outcomes` do."""
    rows = load_outcomes(job)
    return fit(job, rows, *make_trainer(job, rows, work_dir))


def make_trainer(job: TrainingJob, rows: DoubleData, work_dir: Path) -> tuple[RowTrainer, Progress]:
    """The trainer over the rows, ready to train, and the progress that it will report."""
    if job.packing:
        raise Mistake("rows are not packed for KTO; those of a batch share what they have in common anyway", expected="packing: false")
    return assemble(job, rows, work_dir, DoubleCollator, read_options(job, OutcomeObjective))


def load_outcomes(job: TrainingJob) -> DoubleData:
    """The job's rows, each with its context under another's continuation; the weight of what is to be avoided is below zero.

    Raises:
        Mistake: A mask on a first id, a weight that is no positive number, or rows longer than `max_length` where these are refused.
        RunFailed: There is nothing to train on.
    """
    least = read_options(job, OutcomeObjective).desirable
    rows = [row for path in job.rows for row in open_rows(path) if job.role is None or row.role == job.role]
    for row in rows:
        check_row(row)
        if not (math.isfinite(row.weight) and row.weight > 0):
            raise Mistake(f"row {row.id} has a weight that is no positive number", found=row.weight)
    rows = [row for row in rows if any(row.mask)]
    chosen, skipped = select(rows, [len(row.input_ids) for row in rows], job)
    if not chosen:
        raise nothing_to_train_on(job, skipped)
    longest = max(len(row.input_ids) for row in chosen)
    own = [(row.input_ids, labels_of(row.input_ids, row.mask)) for row in chosen]
    others = [_crossed(row, other, longest) for row, other in zip(chosen, _before(chosen), strict=True)]
    return DoubleData(
        tuple((ids, crossed) for (ids, _), (crossed, _) in zip(own, others, strict=True)),
        tuple((labels, crossed) for (_, labels), (_, crossed) in zip(own, others, strict=True)),
        tuple(row.weight if row.reward >= least else -row.weight for row in chosen),
        skipped,
        both_train=False,
    )


def _before(rows: Sequence[Row]) -> list[Row]:
    return [*rows[-1:], *rows[:-1]]


def _crossed(row: Row, other: Row, longest: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Ids and labels of a row's context with another row's continuation."""
    context, start = row.input_ids[: row.mask.index(1)], other.mask.index(1)
    ids = (*context, *other.input_ids[start:])
    labels = ((IGNORED,) * len(context)) + labels_of(other.input_ids[start:], other.mask[start:])
    return ids[:longest], labels[:longest]
