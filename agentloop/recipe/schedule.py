"""Numbers that change as the run goes on: `Scheduled[T]` stands wherever a recipe may write a number.

A number is written in one of these ways::

    0.7                                                         the same all the time
    {by: iteration, values: [0.5, 0.7, 1.0]}                    one an iteration; the last one holds from there on
    {by: update, cosine: {from: 1.0, to: 0.0, over: 200}}       half a cosine from one value to the other, which then holds
    {by: update, linear: {from: 1.0, to: 0.0, over: 200}}       the same along a straight line
    {grid: [0.5, 0.7, 0.9]}                                     one a trial; only inside a `tune` stage
    {tuned: probe.temperature}                                  what a `tune` stage before this one chose for its stage `probe`

Iterations and updates count from 0. A bare list is a list, never a schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Generic, Literal, TypeVar, cast, get_args

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic_core import CoreSchema, core_schema

from agentloop.recipe.part import trouble, unknown
from agentloop.recipe.wording import described

T = TypeVar("T", bound=float)
Shape = Literal["constant", "values", "cosine", "linear", "grid", "tuned"]
By = Literal["iteration", "update"]

_RAMP_KEYS = ("from", "to", "over")
_SHAPES = ("values", "cosine", "linear", "grid", "tuned")
_EXPECTED = "a number, {by: iteration | update, values: [...]} or {by: ..., cosine: {from, to, over}}"


class Scheduled(Generic[T]):
    """A number of type T, or a rule that gives one for each iteration or optimiser update.

    Attributes:
        values: The constant; the values of the schedule or grid; or the (from, to) of a ramp.
        shape: How `values` is to be read.
        by: What a schedule counts.
        over: Iterations or updates that a ramp takes.
        tuned: For shape "tuned", "STAGE.SETTING" whose choice is used.
    """

    __slots__ = ("by", "over", "shape", "tuned", "values")

    def __init__(
        self, values: tuple[T, ...], shape: Shape = "constant", by: By = "iteration", over: int = 0, tuned: str | None = None
    ) -> None:
        self.values = values
        self.shape = shape
        self.by = by
        self.over = over
        self.tuned = tuned

    def _key(self) -> tuple[object, ...]:
        return (self.values, self.shape, self.by, self.over, self.tuned)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scheduled) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Scheduled({self.data()!r})"

    @classmethod
    def constant(cls, value: T) -> Scheduled[T]:
        """The number that never changes."""
        return cls((value,))

    def at(self, iteration: int, update: int = 0, choices: Mapping[str, T] | None = None, trial: int = 0) -> T:
        """The number at an iteration and an optimiser update, both counted from 0.

        `choices` maps "STAGE.SETTING" to what `tune` chose, `trial` is the place in a grid. Raises LookupError for a tuned number without
        its choice.
        """
        if self.shape == "tuned":
            if choices is None or self.tuned is None or self.tuned not in choices:
                raise LookupError(f"no choice was made for {self.tuned}")
            return choices[self.tuned]
        if self.shape == "grid":
            return self.values[trial]
        step = iteration if self.by == "iteration" else update
        if self.shape in ("cosine", "linear"):
            return self._ramp(step)
        return self.values[min(step, len(self.values) - 1)]

    def _ramp(self, step: int) -> T:
        start, end = self.values
        done = min(step / self.over, 1.0)
        left = (1.0 + math.cos(math.pi * done)) / 2.0 if self.shape == "cosine" else 1.0 - done
        value = end + (start - end) * left
        return cast(T, round(value) if isinstance(start, int) else value)

    def data(self) -> object:
        """As it is written in YAML."""
        if self.shape == "constant":
            return self.values[0]
        if self.shape == "tuned":
            return {"tuned": self.tuned}
        if self.shape == "grid":
            return {"grid": list(self.values)}
        if self.shape == "values":
            return {"by": self.by, "values": list(self.values)}
        return {"by": self.by, self.shape: {"from": self.values[0], "to": self.values[1], "over": self.over}}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = handler.generate_schema(get_args(source)[0])
        return core_schema.no_info_wrap_validator_function(
            _parse, inner, serialization=core_schema.plain_serializer_function_ser_schema(_data)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The number itself, or a reference to the one definition of schedules that `json_schema` adds."""
        return {"anyOf": [handler(schema["schema"]), {"$ref": "#/$defs/Schedule"}]}


def _data(value: object) -> object:
    return value.data() if isinstance(value, Scheduled) else value


def _parse(value: object, number: Callable[[object], Any]) -> Scheduled[Any]:
    """Read a number or a schedule; `number` checks one number."""
    if isinstance(value, Scheduled):
        return value
    if not isinstance(value, dict):
        if isinstance(value, list):
            raise trouble("a bare list is a list, not a schedule", expected="a number or {by: iteration, values: [...]}")
        return Scheduled((number(value),))
    shapes = [key for key in value if key in _SHAPES]
    for key in value:
        if key not in (*_SHAPES, "by"):
            raise unknown("key", key, (*_SHAPES, "by"), path=(key,), where=" in a schedule")
    if len(shapes) != 1:
        raise trouble("a schedule says one of values, cosine, linear, grid or tuned", found=", ".join(shapes) or None, expected=_EXPECTED)
    shape: Shape = shapes[0]
    if shape in ("grid", "tuned"):
        if "by" in value:
            raise trouble(f"{shape!r} has no 'by'", path=("by",))
        if shape == "tuned":
            return _tuned(value["tuned"])
    by: Any = value.get("by", "iteration" if shape == "grid" else None)
    if by not in get_args(By):
        message = "a schedule needs 'by'" if by is None else "a schedule counts something else"
        raise trouble(message, path=("by",), found=by, expected="iteration or update")
    if shape in ("cosine", "linear"):
        return _parse_ramp(shape, by, value[shape], number)
    values = value[shape]
    if not isinstance(values, list) or not values:
        raise trouble(f"{shape!r} of a schedule", path=(shape,), found=values, expected="a list of one or more numbers")
    numbers = tuple(_each(number, entry, (shape, index)) for index, entry in enumerate(values))
    return Scheduled(numbers, shape, by)


def _tuned(value: object) -> Scheduled[Any]:
    if not isinstance(value, str) or len(value.split(".")) != 2 or not all(value.split(".")):
        raise trouble("'tuned' names a setting of a stage", path=("tuned",), found=value, expected="STAGE.SETTING")
    return Scheduled((), "tuned", tuned=value)


def _parse_ramp(shape: Shape, by: By, ramp: object, number: Callable[[object], Any]) -> Scheduled[Any]:
    if not isinstance(ramp, dict):
        raise trouble(f"{shape!r} of a schedule", path=(shape,), found=ramp, expected="{from: NUMBER, to: NUMBER, over: COUNT}")
    for key in ramp:
        if key not in _RAMP_KEYS:
            raise unknown("key", key, _RAMP_KEYS, path=(shape, key), where=f" in {shape!r}")
    for key in _RAMP_KEYS:
        if key not in ramp:
            raise trouble(f"{shape!r} needs {key!r}", path=(shape,), expected="{from: NUMBER, to: NUMBER, over: COUNT}")
    over = ramp["over"]
    if not isinstance(over, int) or isinstance(over, bool) or over < 1:
        raise trouble(f"'over' of {shape!r}", path=(shape, "over"), found=over, expected=f"a whole number of {by}s, at least 1")
    start, end = (_each(number, ramp[key], (shape, key)) for key in ("from", "to"))
    return Scheduled((start, end), shape, by, over)


def _each(number: Callable[[object], Any], value: object, path: tuple[str | int, ...]) -> Any:
    """One number of a schedule, so that its error says where in the schedule it stands."""
    try:
        return number(value)
    except ValidationError as error:
        message, expected = described(error.errors(include_url=False)[0])
        raise trouble(f"a number of a schedule {message}", path=path, found=value, expected=expected) from None
