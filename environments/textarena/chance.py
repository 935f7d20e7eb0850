"""Random numbers that belong to one game.

The `textarena` package draws from the random numbers that the whole process shares, so two games at once would disturb each other, and
whatever else draws would disturb them. Its modules are given stand-ins for `random` and `numpy.random` that draw from the numbers of the
game that is being played in this thread.
"""

from __future__ import annotations

import random
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy

_playing = threading.local()


class Chance:
    """The random numbers of one game; a deep copy goes on as the original would have."""

    def __init__(self, seed: int) -> None:
        self.python = random.Random(seed)
        self.numpy = numpy.random.RandomState(seed % 2**32)

    @contextmanager
    def used(self) -> Iterator[None]:
        """Within, the package draws from these, in this thread."""
        before = getattr(_playing, "chance", None)
        _playing.chance = self
        try:
            yield
        finally:
            _playing.chance = before


class _Random:
    """Stands in for the module `random` in the package's modules: functions draw from the game's numbers when they are called."""

    def __getattr__(self, name: str) -> Any:
        if isinstance(getattr(random, name), type):
            return getattr(random, name)  # a class such as `random.Random`, which has numbers of its own
        return _drawing(lambda chance: getattr(chance.python, name))


class _NumpyRandom:
    """Likewise for `numpy.random`."""

    def __getattr__(self, name: str) -> Any:
        if isinstance(getattr(numpy.random, name), type) or name == "default_rng":
            return getattr(numpy.random, name)
        return _drawing(lambda chance: getattr(chance.numpy, name))


class _Numpy:
    """Stands in for the module `numpy`."""

    random = _NumpyRandom()

    def __getattr__(self, name: str) -> Any:
        return getattr(numpy, name)


_STAND_INS: dict[int, Any] = {id(random): _Random(), id(numpy): _Numpy()}


def separate() -> None:
    """Give the stand-ins to all modules of the package that are imported by now."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, types.ModuleType) and (name == "textarena" or name.startswith("textarena.")):
            for alias in ("random", "np", "numpy"):
                found = vars(module).get(alias)
                if id(found) in _STAND_INS:
                    setattr(module, alias, _STAND_INS[id(found)])


def _drawing(choose: Callable[[Chance], Callable[..., Any]]) -> Callable[..., Any]:
    """A function that looks for its numbers when it is called, so that one that a game has kept draws from the right ones too."""

    def draw(*arguments: Any, **options: Any) -> Any:
        chance = getattr(_playing, "chance", None)
        if chance is None:
            raise RuntimeError("textarena draws random numbers outside of a game")
        return choose(chance)(*arguments, **options)

    return draw
