"""What the `reasoning_gym` package does that an environment must not do, put right by giving its modules other names to find.

- Two generators draw from the random numbers that the whole process shares (`list_functions`, `pool_matrix`), so what they ask depends on
  who else draws. They get numbers of their own, seeded by the question.
- Some modules print while they work, to standard output.
- Three generators go through sets, whose order changes from process to process (`isomorphic_strings`, `polynomial_multiplication`,
  `ransom_note`); they find them sorted.
- Four scorers call `eval` on what the model wrote (`binary_matrix`, `n_queens`, `spiral_matrix`, `string_insertion`); they get
  `ast.literal_eval`.
- Five scorers hand it to `sympy.parse_expr`, which evaluates it as Python (`countdown`, `puzzle24`, `polynomial_multiplication` and the two
  integrations); they get one that first makes sure that it is a formula, and no tower of powers.

A name in a module hides the builtin or import of that name for that module alone, so nothing here is seen outside the package.
"""

from __future__ import annotations

import ast
import importlib
import random
import sys
import types
from functools import cache
from typing import Any

import numpy
import sympy

LONGEST_FORMULA = 400

_LISTING_SETS = ("algorithmic.isomorphic_strings", "algorithmic.ransom_note")
_EVALUATING = ("algorithmic.binary_matrix", "algorithmic.spiral_matrix", "algorithmic.string_insertion", "games.n_queens")
_PARSING = ("games.countdown", "games.puzzle24")
_PARSING_BY_MODULE = {
    "algebra.polynomial_multiplication": "sp",
    "algebra.simple_integration": "sympy",
    "algebra.intermediate_integration": "sympy",
}

_FUNCTIONS = {"sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log", "ln", "sqrt", "Abs"}
_CONSTANTS = {"pi", "E"}
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow, ast.USub, ast.UAdd)


class _Shadow:
    """A module with some of its names replaced."""

    def __init__(self, module: types.ModuleType, **replaced: Any) -> None:
        self.__dict__.update(replaced)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


class OwnRandom:
    """The random numbers of the generators that would draw from the process's; to be used under a lock."""

    def __init__(self) -> None:
        self.python = random.Random()
        self.numpy = numpy.random.RandomState()

    def seed(self, seed: int) -> None:
        """Begin a question."""
        self.python.seed(seed)
        self.numpy.seed(seed % 2**32)


@cache
def mend() -> OwnRandom:
    """Mend the package, once a process; returns the random numbers to seed before each question."""
    own = OwnRandom()
    _module("induction.list_functions.generators").random = own.python  # type: ignore[attr-defined]
    _module("algorithmic.pool_matrix").np = _Shadow(numpy, random=own.numpy)  # type: ignore[attr-defined]
    for module in [module for name, module in sys.modules.items() if name.startswith("reasoning_gym.")]:
        module.print = _silent  # type: ignore[attr-defined]
    for name in _LISTING_SETS:
        _module(name).list = _listed  # type: ignore[attr-defined]
    _module("algebra.polynomial_multiplication").itermonomials = _monomials  # type: ignore[attr-defined]
    for name in _EVALUATING:
        _module(name).eval = ast.literal_eval  # type: ignore[attr-defined]
    for name in _PARSING:
        _module(name).parse_expr = parse_formula  # type: ignore[attr-defined]
    for name, alias in _PARSING_BY_MODULE.items():
        setattr(_module(name), alias, _Shadow(sympy, parse_expr=parse_formula))
    return own


def parse_formula(text: str, *arguments: Any, **options: Any) -> Any:
    """`sympy.parse_expr` for text that a model wrote.

    Raises:
        ValueError: It is no formula of numbers, one-letter variables and the usual functions, or one that could take for ever.
        SyntaxError: It is not Python either.
    """
    if len(text) > LONGEST_FORMULA:
        raise ValueError(f"a formula of {len(text)} characters")
    tree = ast.parse(text.strip(), mode="eval")
    for node in ast.walk(tree):
        _check(node)
    return sympy.parse_expr(text, *arguments, **options)


def _silent(*_arguments: Any, **_options: Any) -> None:
    """`print`, without a word."""


def _listed(things: Any) -> list[Any]:
    """`list`, with sets in order."""
    return sorted(things) if isinstance(things, (set, frozenset)) else list(things)


def _monomials(*arguments: Any) -> list[Any]:
    """`sympy.itermonomials`, in order."""
    return sorted(sympy.itermonomials(*arguments), key=sympy.default_sort_key)


def _check(node: ast.AST) -> None:
    """Raise ValueError for what is not a formula's."""
    match node:
        case ast.Expression() | ast.BinOp() | ast.UnaryOp() | ast.Load():
            allowed = not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow)) or _small_power(node)
        case ast.operator() | ast.unaryop():
            allowed = isinstance(node, _OPERATORS)
        case ast.Constant():
            allowed = type(node.value) in (int, float)
        case ast.Name():
            allowed = node.id in _FUNCTIONS | _CONSTANTS or len(node.id) == 1
        case ast.Call():
            allowed = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and len(node.args) == 1 and not node.keywords
        case _:
            allowed = False
    if not allowed:
        raise ValueError(f"no formula: {ast.dump(node)[:80]}")


def _small_power(power: ast.BinOp) -> bool:
    """Whether a power stays small: no power of numbers within it, and no exponent of numbers beyond 99."""
    for side in (power.left, power.right):
        for inner in ast.walk(side):
            if isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Pow) and (side is power.right or not _has_name(inner)):
                return False
    return _has_name(power.right) or (
        all(
            abs(inner.value) <= 99
            for inner in ast.walk(power.right)
            if isinstance(inner, ast.Constant) and isinstance(inner.value, (int, float))
        )
        and not any(isinstance(inner, ast.Mult) for inner in ast.walk(power.right))
    )


def _has_name(node: ast.AST) -> bool:
    return any(isinstance(inner, ast.Name) for inner in ast.walk(node))


def _module(name: str) -> types.ModuleType:
    return importlib.import_module(f"reasoning_gym.{name}")
