"""What the tiny policy is made from: terse calculator games, played by someone who often picks the wrong operation.

The texts are those of `environments/calculator` in its terse mode, character by character (a test plays them there): an expression,
then results; one call a message, and at the end the number alone::

    (12+7)*3    add(12,7)
    19          mul(19,3)
    57          57
"""

from __future__ import annotations

import operator
import random
from collections.abc import Callable
from dataclasses import dataclass

OPERATIONS: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "+": ("add", operator.add),
    "-": ("sub", operator.sub),
    "*": ("mul", operator.mul),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """A number to start with and operations (sign, operand) on it, one after another; it stays within 1 to 999."""

    start: int
    operations: tuple[tuple[str, int], ...]

    @property
    def expression(self) -> str:
        """For example `(12+7)*3`."""
        text = str(self.start)
        for index, (sign, operand) in enumerate(self.operations):
            text = f"({text}){sign}{operand}" if index else f"{text}{sign}{operand}"
        return text


def make_problem(generator: random.Random, level: int) -> Problem:
    """A problem of so many operations, in the ranges of the environment."""
    while True:
        start = number = generator.randint(2, 99)
        chosen: list[tuple[str, int]] = []
        for _ in range(level):
            sign = generator.choice("+-*")
            operand = generator.randint(2, 9 if sign == "*" else 99)
            number = OPERATIONS[sign][1](number, operand)
            chosen.append((sign, operand))
            if not 1 <= number <= 999:
                break
        else:
            return Problem(start, tuple(chosen))


def play(problem: Problem, generator: random.Random, mistakes: float) -> tuple[list[tuple[str, str]], bool]:
    """(observation, action) turn by turn, and whether the game was won, of a player who takes a wrong operation with probability
    `mistakes` at each step.
    """
    seen, number, won, turns = problem.expression, problem.start, True, []
    for sign, operand in problem.operations:
        if generator.random() < mistakes:
            sign, won = generator.choice([other for other in OPERATIONS if other != sign]), False
        name, apply = OPERATIONS[sign]
        turns.append((seen, f"{name}({number},{operand})"))
        number = apply(number, operand)
        seen = str(number)
    return [*turns, (seen, seen)], won
