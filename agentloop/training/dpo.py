"""Direct preference optimisation on pairs of ids: whole trajectories from where they part, or sibling turns (`dataset: preference`).

sigmoid   DPO, arXiv:2305.18290: the pair's margin over the reference, the policy that the training began with
simpo     SimPO, arXiv:2405.14734: mean log-probabilities, a target margin, no reference
orpo      ORPO, arXiv:2403.07691: the chosen side's mean negative log-likelihood, and `beta` times the odds ratio; no reference

`imitation` adds the chosen side's mean negative log-likelihood with that weight (RPO, arXiv:2404.19733), so that the better side does not
become less likely together with the worse one. Losses are weighted by the pair and divided by the number of pairs of an optimiser step,
over all pieces and processes.

TRL's own DPO trainer tokenises text and takes the mean over a device's pairs, which neither weights nor a short batch go into; so its
formulas are here as functions of their own, on the same trainer as SFT, and tests hold them against TRL's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch

from agentloop.errors import Mistake
from agentloop.training.job import Trained, TrainingJob
from agentloop.training.options import at_least, one_of, read_options
from agentloop.training.pair_data import DoubleData, load_pairs
from agentloop.training.preference_loss import Side, dpo_margin, odds_margin, preferred, simpo_margin
from agentloop.training.progress import Progress
from agentloop.training.row_trainer import RowTrainer, Scores
from agentloop.training.sequence_batch import TAKES, DoubleCollator, sums
from agentloop.training.sft import assemble, fit

Form = Literal["sigmoid", "simpo", "orpo"]


@dataclass(frozen=True, slots=True)
class PairObjective:
    """What is minimised, and the options of a job.

    Attributes:
        loss: Form of the loss.
        beta: Strength of the pull to the reference, SimPO's scale of mean log-probabilities, or ORPO's weight of the odds ratio.
        margin: SimPO's target (gamma).
        imitation: Weight of the chosen side's mean negative log-likelihood.
    """

    loss: Form = "sigmoid"
    beta: float = 0.1
    margin: float = 0.5
    imitation: float = 0.0

    def __post_init__(self) -> None:
        one_of("loss", self.loss, get_args(Form))
        at_least("beta", self.beta, 0, above=True)
        at_least("margin", self.margin, 0)
        at_least("imitation", self.imitation, 0)

    @property
    def takes(self) -> tuple[str, ...]:
        """What it needs of a batch."""
        return TAKES

    @property
    def compares(self) -> bool:
        """Whether it needs a reference."""
        return self.loss == "sigmoid"

    def __call__(self, logprobs: torch.Tensor, reference: torch.Tensor | None, batch: Mapping[str, torch.Tensor]) -> Scores:
        """Weighted losses of the pairs, shape (N,); how many prefer the chosen side, and by what margin."""
        references = sums(reference, batch) if reference is not None else (None, None)
        chosen, rejected = map(Side, sums(logprobs, batch), batch["lengths"].chunk(2), references)
        margin, losses = self._margin_and_losses(chosen, rejected)
        if self.imitation:
            losses = losses - self.imitation * chosen.mean
        return Scores(losses * batch["weights"], {"preferred": (margin > 0).float(), "margin": margin.detach()})

    def _margin_and_losses(self, chosen: Side, rejected: Side) -> tuple[torch.Tensor, torch.Tensor]:
        if self.loss == "sigmoid":
            margin = dpo_margin(chosen, rejected, self.beta)
            return margin, preferred(margin)
        if self.loss == "simpo":
            margin = simpo_margin(chosen, rejected, self.beta)
            return margin, preferred(margin, self.margin)
        margin = odds_margin(chosen, rejected)
        return margin, self.beta * preferred(margin) - chosen.mean


def run(job: TrainingJob, work_dir: Path) -> Trained:
    """Train in this process (one of `job.processes`) and save the adapter. Raises what `sft.run` and `load_pairs` do."""
    pairs = load_pairs(job)
    return fit(job, pairs, *make_trainer(job, pairs, work_dir))


def make_trainer(job: TrainingJob, pairs: DoubleData, work_dir: Path) -> tuple[RowTrainer, Progress]:
    """The trainer over the pairs, ready to train, and the progress that it will report."""
    if job.packing:
        raise Mistake("pairs are not packed; the sequences of a batch share what they have in common anyway", expected="packing: false")
    return assemble(job, pairs, work_dir, DoubleCollator, read_options(job, PairObjective))
