"""The tasks of ScienceWorld and their official split, without a simulator to ask.

A variation of a task belongs to train, dev or test by its number alone: the package's `PythonInterface.getSets` cuts the variations into
four equal parts, in order, of which train gets two, dev one, and test one and what is left over. How many variations a task has is written
here, because to ask takes a simulator; a test holds both against the real one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from agentloop.environment.base import Split

VARIATIONS: Mapping[str, int] = MappingProxyType(
    {
        "boil": 30,
        "melt": 30,
        "freeze": 30,
        "change-the-state-of-matter-of": 30,
        "use-thermometer": 540,
        "measure-melting-point-known-substance": 436,
        "measure-melting-point-unknown-substance": 300,
        "power-component": 20,
        "power-component-renewable-vs-nonrenewable-energy": 20,
        "test-conductivity": 900,
        "test-conductivity-of-unknown-substances": 600,
        "find-living-thing": 300,
        "find-non-living-thing": 300,
        "find-plant": 300,
        "find-animal": 300,
        "grow-plant": 126,
        "grow-fruit": 126,
        "chemistry-mix": 32,
        "chemistry-mix-paint-secondary-color": 36,
        "chemistry-mix-paint-tertiary-color": 36,
        "lifespan-longest-lived": 125,
        "lifespan-shortest-lived": 125,
        "lifespan-longest-lived-then-shortest-lived": 125,
        "identify-life-stages-1": 14,
        "identify-life-stages-2": 10,
        "inclined-plane-determine-angle": 168,
        "inclined-plane-friction-named-surfaces": 1386,
        "inclined-plane-friction-unnamed-surfaces": 162,
        "mendelian-genetics-known-plant": 120,
        "mendelian-genetics-unknown-plant": 480,
    }
)
"""How many variations each task has, in the order of the paper (topics 1 to 10)."""


def variations(task: str, split: Split) -> range:
    """The numbers of a task's variations in a split. Every task has at least ten, so the package's rule for tiny ones is not needed."""
    quarter = VARIATIONS[task] // 4
    return {"train": range(2 * quarter), "dev": range(2 * quarter, 3 * quarter), "test": range(3 * quarter, VARIATIONS[task])}[split]
