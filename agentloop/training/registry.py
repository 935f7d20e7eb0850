"""Training methods by name. A method is one module of this package with

    run(job: TrainingJob, work_dir: Path) -> Trained

which the training process calls; its module is imported there only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

from agentloop.errors import Mistake, nearest
from agentloop.training.job import Trained, TrainingJob

_METHODS = {
    "dpo": "agentloop.training.dpo",
    "grpo": "agentloop.training.grpo",
    "kto": "agentloop.training.kto",
    "online": "agentloop.training.online",
    "sft": "agentloop.training.sft",
}


def names() -> tuple[str, ...]:
    """Names of all methods, sorted; imports nothing."""
    return tuple(sorted(_METHODS))


def check(name: str) -> None:
    """Raises `Mistake` where there is no method of that name."""
    if name not in _METHODS:
        raise Mistake(f"unknown training method {name!r}", expected=f"one of {', '.join(names())}", nearest=nearest(name, _METHODS))


def find(name: str) -> Callable[[TrainingJob, Path], Trained]:
    """The method's `run`. Imports torch."""
    check(name)
    run: Callable[[TrainingJob, Path], Trained] = importlib.import_module(_METHODS[name]).run
    return run
