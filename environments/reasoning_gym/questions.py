"""Questions of the `reasoning_gym` package: made from a generator, a seed and a number, and scored by the generator's own scorer."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import reasoning_gym.code  # noqa: F401  all generators are registered by importing the package
from reasoning_gym.factory import DATASETS

from .mends import mend

LEFT_OUT = {"composite": "it mixes the other generators, which is done here by naming several"}
"""Generators that are not offered, and why."""

ATTEMPTS = 10
STRIDE = 10_000
"""Between the seeds of one question's attempts: more than a split has questions, and ten of them less than what lies between splits."""

_making = threading.Lock()


def names() -> tuple[str, ...]:
    """All generators, by name."""
    mend()
    return tuple(sorted(set(DATASETS) - set(LEFT_OUT)))


def check_configuration(name: str, configuration: Mapping[str, Any]) -> None:
    """Raise ValueError if a generator does not take that configuration."""
    try:
        _generator(name, 0, 1, tuple(sorted(configuration.items())))
    except (AssertionError, TypeError, ValueError) as error:
        raise ValueError(f"generator {name!r} does not take {dict(configuration)!r}: {error}") from error


def question(name: str, seed: int, size: int, index: int, configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Question `index` of the `size` that a generator makes from a seed: "question", "answer" (may be None) and "metadata".

    Some generators fail on some seeds (a maze without a way, for example); then the question is that of another seed, always the same.
    """
    own = mend()
    for attempt in range(ATTEMPTS):
        with _making:  # every instance asks from a thread of its own, and the generators share random numbers
            own.seed(seed + index)
            try:
                return dict(_generator(name, seed + attempt * STRIDE, size, tuple(sorted(configuration.items())))[index])
            except Exception:
                if attempt == ATTEMPTS - 1:
                    raise
    raise AssertionError("unreachable")


def score(name: str, seed: int, size: int, configuration: Mapping[str, Any], answer: str | None, entry: dict[str, Any]) -> float:
    """What an answer is worth, 0 to 1, by the generator's scorer. Whatever that raises goes through."""
    generator = _generator(name, seed, size, tuple(sorted(configuration.items())))
    value = float(generator.score_answer(answer, entry))
    return min(max(value, 0.0), 1.0) if math.isfinite(value) else 0.0


@lru_cache(maxsize=512)
def _generator(name: str, seed: int, size: int, configuration: tuple[tuple[str, Any], ...]) -> Any:
    """A generator of the package; to be asked for questions under the lock."""
    environment, config = DATASETS[name]
    made = config(**{"seed": seed, "size": size, **dict(configuration)})
    if hasattr(made, "validate"):
        made.validate()
    return environment(config=made)
