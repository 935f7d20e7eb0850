"""Problems of the calculator: a number, and operations on it one after another, told in words or written as an expression.

Problems are made from a seed. Which split a problem belongs to follows from a hash of its arithmetic alone (the first number, the
operations and their operands), so that no calculation of one split comes up in another, whatever the names and words around it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from agentloop.environment.base import Split

Kind = Literal["story", "problem", "expression"]
SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}
HIGHEST_LEVEL = 8

SIZES: dict[Split, int] = {"train": 1000, "dev": 250, "test": 250}
"""Tasks of each level in a split."""

PEOPLE = ("Tom", "Ann", "Ben", "Eva", "Sam", "Mia", "Leo", "Zoe", "Max", "Ivy")
THINGS = ("apples", "coins", "books", "cards", "shells", "stamps", "pens", "cups", "eggs", "beads")
EVENTS = {
    "add": ("{who} finds {n} more.", "{who} buys {n} more.", "{who} gets {n} from a friend.", "{who} wins {n}."),
    "subtract": ("{who} loses {n}.", "{who} gives away {n}.", "{who} sells {n}.", "{who} breaks {n}."),
    "multiply": ("Now {who} has {n} times as many.", "The number grows {n} times.", "A trick makes it {n} times as many."),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A first number, operations on it and what stands around them.

    Attributes:
        start: The first number.
        operations: (operation, operand) in order; operations are the keys of `SIGNS`.
        who: Whose things they are.
        what: What is counted.
        told: One sentence an operation.
    """

    start: int
    operations: tuple[tuple[str, int], ...]
    who: str
    what: str
    told: tuple[str, ...]

    @property
    def key(self) -> str:
        """The arithmetic alone, for example `12+30-7`, read from left to right."""
        return f"{self.start}" + "".join(f"{SIGNS[name]}{operand}" for name, operand in self.operations)

    @property
    def values(self) -> tuple[int, ...]:
        """The number after each operation; the last one is the answer."""
        values, value = [], self.start
        for name, operand in self.operations:
            value = calculate(name, value, operand)
            values.append(value)
        return tuple(values)

    def expression(self, space: str = " ") -> str:
        """The arithmetic as one expression, for example `(12 + 30) * 2`."""
        text = str(self.start)
        for index, (name, operand) in enumerate(self.operations):
            text = f"({text})" if index else text
            text += f"{space}{SIGNS[name]}{space}{operand}"
        return text


def calculate(operation: str, a: int, b: int) -> int:
    """What the calculator shows."""
    if operation == "add":
        return a + b
    return a - b if operation == "subtract" else a * b


def split_of(key: str) -> Split:
    """The split of a problem: 60 % train, 20 % dev, 20 % test, by a hash of its arithmetic."""
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 10
    return "train" if share < 6 else "dev" if share < 8 else "test"


@lru_cache(maxsize=64)
def problems(kind: Kind, level: int, split: Split, seed: int) -> tuple[Problem, ...]:
    """The problems with `level` operations of a split, different in their arithmetic, in a fixed order."""
    found: dict[str, Problem] = {}
    rng = random.Random(f"calculator/{kind}/{level}/{seed}")
    for problem in _stream(kind, level, rng):
        if split_of(problem.key) == split:
            found.setdefault(problem.key, problem)
        if len(found) == SIZES[split]:
            break
    return tuple(found.values())


def _stream(kind: Kind, level: int, rng: random.Random) -> Iterator[Problem]:
    """Problems, with repetitions; as many as give every split its size."""
    for _ in range(20 * SIZES["train"]):
        yield _draw(kind, level, rng)


def _draw(kind: Kind, level: int, rng: random.Random) -> Problem:
    """One problem whose numbers stay between 1 and 999, so that none is long to write."""
    largest = 99 if kind == "expression" else 50
    while True:
        value = start = rng.randint(2, largest)
        operations: list[tuple[str, int]] = []
        for _ in range(level):
            name = rng.choice(tuple(SIGNS))
            operand = rng.randint(2, 9 if name == "multiply" else largest)
            value = calculate(name, value, operand)
            if not 1 <= value <= 999:
                break
            operations.append((name, operand))
        if len(operations) == level:
            break
    who, what = rng.choice(PEOPLE), rng.choice(THINGS)
    told = tuple(rng.choice(EVENTS[name]).format(who=who, n=operand) for name, operand in operations)
    return Problem(start, tuple(operations), who, what, told)
