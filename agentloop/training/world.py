"""The processes that train together: how many there really are, and on what."""

from __future__ import annotations

import torch
from accelerate import PartialState

from agentloop.errors import RunFailed
from agentloop.training.job import TrainingJob


def uses_cuda(job: TrainingJob) -> bool:
    """Whether this job trains on CUDA here.

    Raises:
        RunFailed: The job asks for CUDA and there is none.
    """
    if job.device == "cuda" and not torch.cuda.is_available():
        raise RunFailed("the training asks for device 'cuda', and torch sees none here; install the gpu extra, or say device: cpu")
    return job.device != "cpu" and torch.cuda.is_available()


def asserted_world_size(job: TrainingJob) -> int:
    """The number of processes, as they count themselves.

    Raises:
        RunFailed: It is not the job's. Some launchers silently start fewer, and a batch is then not what the recipe says.
    """
    world_size = PartialState().num_processes
    if world_size != job.processes:
        raise RunFailed(f"the training was to run in {job.processes} processes and runs in {world_size}")
    return world_size
