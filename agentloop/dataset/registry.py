"""Builders by name. A builder is one file of this package that defines `Settings` (a frozen dataclass) and

    build(trees: Iterable[Tree], settings: Settings, *, stage: str, iteration: int) -> Iterator[Row]

pure and streaming. Its name in a recipe (`build: {dataset: NAME}`) is the file's; the rest of the stage's keys are the fields of
`Settings`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import agentloop.dataset
from agentloop.dataset.row import Row
from agentloop.errors import Mistake, nearest

_NOT_BUILDERS = frozenset({"mix", "registry", "row", "row_file", "schema", "segment_row", "store"})


@dataclass(frozen=True, slots=True)
class Builder:
    """A builder by its name: the type of its settings and the pure function from trees to rows."""

    name: str
    settings: type[Any]
    build: Callable[..., Iterator[Row]]

    def configure(self, options: Mapping[str, Any]) -> Any:
        """The settings with these options over the defaults.

        Raises:
            Mistake: An option that this builder does not have.
        """
        known = [field.name for field in dataclasses.fields(self.settings)]
        for option in options:
            if option not in known:
                raise Mistake(
                    f"dataset {self.name!r} has no option {option!r}", expected=f"one of {', '.join(known)}", nearest=nearest(option, known)
                )
        return self.settings(**options)


def names() -> tuple[str, ...]:
    """Names of all builders, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(agentloop.dataset.__path__) if module.name not in _NOT_BUILDERS))


@functools.cache
def find(name: str) -> Builder:
    """The builder of that name.

    Raises:
        Mistake: There is none; names the nearest.
    """
    if name not in names():
        raise Mistake(f"unknown dataset {name!r}", expected=f"one of {', '.join(names())}", nearest=nearest(name, names()))
    module: ModuleType = importlib.import_module(f"agentloop.dataset.{name}")
    return Builder(name, module.Settings, module.build)
