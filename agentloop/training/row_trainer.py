"""TRL's trainer as all methods on rows use it: our order of rows, and a loss of our own where the method is not the plain mean over tokens.

An `Objective` turns log-probabilities into losses that add up; TRL divides and scales them. The divisor is the sum of `count` over the
batches of all pieces and processes of an optimiser step, so a step does not depend on how its rows are spread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import torch
from datasets import Dataset
from trl import SFTTrainer

from agentloop.training.batches import BatchOrder
from agentloop.training.checkpointed_trainer import CheckpointedTrainer
from agentloop.training.job import TrainingJob
from agentloop.training.reference import as_reference


class Scores(NamedTuple):
    """What an objective makes of a batch.

    Attributes:
        losses: Losses that add up to the batch's, of any shape.
        measures: Values by name, one an example, whose means go to the progress; the names are the same for every batch.
    """

    losses: torch.Tensor
    measures: Mapping[str, torch.Tensor] = MappingProxyType({})


class Objective(Protocol):
    """What a training minimises, where it is not the plain mean over tokens.

    Attributes:
        takes: Names of tensors in a batch that are the objective's and not the model's.
        compares: Whether it needs log-probabilities of the policy that the training began with.
    """

    @property
    def takes(self) -> tuple[str, ...]: ...

    @property
    def compares(self) -> bool: ...

    def __call__(self, logprobs: torch.Tensor, reference: torch.Tensor | None, batch: Mapping[str, torch.Tensor]) -> Scores:
        """Losses and measures of a batch.

        Args:
            logprobs: Log-probability of each id but the first, 0 where it has no label; shape (B, T - 1).
            reference: The same under the reference; None unless it compares.
            batch: What it takes.
        """


class RowTrainer(CheckpointedTrainer, SFTTrainer):
    """TRL's trainer with our order of rows, and losses of our own where there is an objective.

    `lengths` are those of the real rows; the dataset holds one filler row after them. The sum of an objective's losses is divided by the
    sum of `count` over the batches of all pieces and processes of an optimiser step.
    """

    def __init__(self, *, lengths: list[int], job: TrainingJob, objective: Objective | None = None, **keywords: Any) -> None:
        self._lengths = lengths
        self._job = job
        self._objective = objective
        super().__init__(**keywords)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> BatchOrder:
        job = self._job
        pieces = job.processes * job.gradient_accumulation
        return BatchOrder(self._lengths, job.batch_size, pieces=pieces, filler=len(self._lengths), seed=job.seed)

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        batches, tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._objective is None or not batches:
            return batches, tokens
        count = torch.stack([batch["count"] for batch in batches]).sum()
        return batches, self.accelerator.gather(count.to(device)).sum()

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: torch.Tensor | None = None
    ) -> Any:
        objective = self._objective
        if objective is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        own = {name: inputs.pop(name) for name in objective.takes}
        count = inputs.pop("count")
        reference = self._reference(inputs) if objective.compares else None

        def scored(**keywords: Any) -> Any:
            outputs = model(**keywords)
            losses, measures = objective(outputs.log_probs, reference, own)
            self._note(measures, count)
            outputs.log_probs = -losses  # TRL takes the negative sum and divides
            return outputs

        return super().compute_loss(scored, inputs, return_outputs, num_items_in_batch)

    def _note(self, measures: Mapping[str, torch.Tensor], count: torch.Tensor) -> None:
        """Means over the examples of all processes that are no fillers; TRL averages them over pieces and logs them."""
        for name, values in measures.items():
            total, number = self.accelerator.reduce(torch.stack([values.sum() * (count > 0), count.to(values)]), "sum")
            self._metrics["train"][name].append((total / number.clamp(min=1)).item())

    def _reference(self, inputs: dict[str, Any]) -> torch.Tensor:
        """Log-probabilities under the policy that the training began with; shape (B, T - 1)."""
        with as_reference(self.accelerator.unwrap_model(self.model)):
            logprobs: torch.Tensor = self.model(**inputs, use_cache=False, fused_lm_head=True).log_probs
        return logprobs
