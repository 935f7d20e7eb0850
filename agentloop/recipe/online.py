"""`online` of a policy-gradient training: it samples for itself, a round at a time, with the policy that it trains."""

from typing import Literal

from pydantic import Field, model_validator

from agentloop.recipe.build import Advantage
from agentloop.recipe.part import Amount, Count, Part, trouble
from agentloop.recipe.reference import References
from agentloop.recipe.sample import GroupSample

OUTSIDE = ("id", "when", "role", "into", "from", "start_from", "seat", "size", "tokens", "seconds", "until_win")
"""Keys that a part of a training does not have: it has no name, reads nothing, plays the training's role, and plays whole groups."""


class OnlineSample(GroupSample):
    """How a round is played: as `sample` with `method: group`."""

    @model_validator(mode="before")
    @classmethod
    def _inside(cls, value: object) -> object:
        _refuse_outside(value, "sample")
        if isinstance(value, dict) and value.get("split", "train") != "train":
            raise trouble("a training samples from the train split", path=("split",), found=value["split"], expected="train")
        return value


class OnlineAdvantage(Advantage):
    """What a round's rows are: as `build` with `dataset: advantage`."""

    dataset: Literal["advantage"] = "advantage"
    from_: References | None = Field(None, alias="from")  # type: ignore[assignment]  # the trees are the round's
    """Not said: the trees are the round's."""

    @model_validator(mode="before")
    @classmethod
    def _inside(cls, value: object) -> object:
        _refuse_outside(value, "build")
        return value


class Online(Part):
    """Rounds of sampling inside a training, in place of rows from earlier stages. Each round plays other tasks, makes rows with advantages,
    and trains on them as a training of its own would; the adapter that comes out plays the next one.
    """

    sample: OnlineSample = Field(default_factory=OnlineSample)
    """How a round is played; see `sample` with `method: group`. The temperature is that of the stage's iteration."""
    build: OnlineAdvantage = Field(default_factory=OnlineAdvantage)
    """What its rows are; see `build` with `dataset: advantage`."""
    rounds: Count = 8
    """How many. Schedules `by: update` count them."""
    staleness: Amount = 0
    """Rounds by which the adapter that plays may lag behind the one that is trained: 0 plays and trains by turns, 1 plays the next round
    while one is trained.
    """
    refill: Amount = 0
    """How often, at most, other tasks are played in place of those whose group says nothing, all won or all lost."""
    wait: Count = 3600
    """Seconds that the training waits for a round."""


def _refuse_outside(value: object, what: str) -> None:
    for key, entry in value.items() if isinstance(value, dict) else ():
        if key in OUTSIDE and entry not in (None, False):
            raise trouble(f"'{what}' of an online training has no {key!r}", path=(key,), expected="a key of how a round is played or built")
