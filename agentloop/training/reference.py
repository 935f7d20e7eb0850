"""The reference of a training: the policy that it began with, in the same memory as the policy that it makes.

A training that goes on from an adapter keeps a frozen copy of that adapter beside it, under a name of its own; one that starts a fresh
adapter began with the base model, which is there as soon as the adapter is switched off. There is never a second model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from trl.trainer.utils import use_adapter

from agentloop.training.job import TrainingJob

NAME = "reference"
"""Name of the frozen copy among the model's adapters."""


def keep_reference(model: PeftModel, job: TrainingJob) -> None:
    """Add the frozen copy to a model that goes on from an adapter; a model with a fresh adapter needs none."""
    if job.start is not None:
        model.load_adapter(job.start, adapter_name=NAME, is_trainable=False)


@contextmanager
def as_reference(model: PeftModel) -> Iterator[None]:
    """Within, the model computes what it computed when the training began: no dropout, and nothing is recorded for gradients."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), use_adapter(model, NAME if NAME in model.peft_config else None):
            yield
    finally:
        model.train(training)
