"""Builders by name. A builder is one file of this package that defines `Settings` (a frozen dataclass) and

    build(trees: Iterable[Tree], settings: Settings, *, stage: str, iteration: int) -> Iterator[Row]

pure and streaming. Its name in a recipe (`build: {dataset: NAME}`) is the file's; the rest of the stage's keys are the fields of
`Settings`. Three things a builder may add:

- `author: Author` among the parameters of `build`: it writes turns that nobody sampled, and is given the model's author;
- `report: BuildReport` among them: it says what it left out, and is given the report to fill;
- `FORMAT`, a `RowFormat`: its rows are of another kind than `Row`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import agentloop.dataset
from agentloop.dataset.row_format import RowFormat
from agentloop.dataset.schema import ROWS
from agentloop.errors import Mistake, nearest

_NOT_BUILDERS = frozenset(
    {
        "build_report",
        "credit",
        "discount_schedule",
        "groups",
        "mix",
        "preference_row",
        "preference_schema",
        "registry",
        "relative",
        "row",
        "row_file",
        "row_format",
        "schema",
        "segment_row",
        "shaping",
        "splice",
        "store",
        "trajectory",
    }
)


@dataclass(frozen=True, slots=True)
class Builder:
    """A builder by its name.

    Attributes:
        name: The name.
        settings: The type of its settings.
        build: The pure function from trees to rows.
        format: The kind of its rows.
        writes: Whether `build` takes an `author`.
        reports: Whether `build` takes a `report`.
    """

    name: str
    settings: type[Any]
    build: Callable[..., Iterator[Any]]
    format: RowFormat[Any] = ROWS
    writes: bool = False
    reports: bool = False

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
    parameters = inspect.signature(module.build).parameters
    return Builder(name, module.Settings, module.build, getattr(module, "FORMAT", ROWS), "author" in parameters, "report" in parameters)
