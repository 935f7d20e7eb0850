"""What only one method knows: `TrainingJob.options` as a frozen dataclass of that method."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from agentloop.errors import Mistake, nearest
from agentloop.training.job import TrainingJob

T = TypeVar("T")


def read_options(job: TrainingJob, kind: type[T]) -> T:
    """The job's options over the defaults of `kind`, a dataclass. Raises `Mistake` for an option that the method does not have."""
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in job.options:
        if name not in known:
            raise Mistake(
                f"training method {job.method!r} has no option {name!r}",
                expected=f"some of {', '.join(known)}",
                nearest=nearest(name, known),
            )
    return kind(**job.options)


def one_of(name: str, found: Any, known: tuple[str, ...]) -> None:
    """Raises `Mistake` unless `found` is one of the words."""
    if found not in known:
        raise Mistake(
            f"unknown {name} of a training", found=found, expected=f"one of {', '.join(known)}", nearest=nearest(str(found), known)
        )


def at_least(name: str, found: float, least: float, *, above: bool = False) -> None:
    """Raises `Mistake` unless `found` is a number from `least` on (or above it)."""
    if not (found > least if above else found >= least):
        raise Mistake(f"{name} of a training is out of range", found=found, expected=f"{'more than' if above else 'at least'} {least:g}")
