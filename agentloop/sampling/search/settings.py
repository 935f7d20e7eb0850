"""What a `sample` stage of a recipe says about tree search, in the recipe's own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from agentloop.errors import Mistake
from agentloop.sampling.search.uct import EXPLORATION
from agentloop.sampling.settings import SampleSettings

Deduplicate = Literal["effect", "action", "none"]
"""Which candidates of an expansion are one: those that did the same, those that said the same action, or none."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When the search of a task ends before it has done all that it was asked for; None is no limit.

    Attributes:
        tokens: Generated tokens of a task; once they are used up, nothing further is asked of the engine. What is under way is finished,
            so the last wave may exceed it.
        seconds: Wall-clock seconds of a task, read between waves. The result then depends on the clock.
        until_win: Whether it ends with the first success.
    """

    tokens: int | None = None
    seconds: float | None = None
    until_win: bool = False

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise Mistake("the token budget of a sample stage is too small", found=self.tokens, expected="at least 1")
        if self.seconds is not None and self.seconds <= 0:
            raise Mistake("the time budget of a sample stage is too small", found=self.seconds, expected="more than 0")

    @property
    def any(self) -> bool:
        """Whether something may end a search early; whole episodes are then played one after another."""
        return self.until_win or self.tokens is not None or self.seconds is not None


@dataclass(frozen=True, slots=True)
class Expansion:
    """How the children of a node are found.

    Attributes:
        width: Candidates of an expansion.
        draw: "policy" samples `width` continuations; "admissible" scores the environment's admissible actions by the policy and draws
            `width` of them.
        deduplicate: See `Deduplicate`.
        disasters: Whether a negative reward ends a path, with the value 0 (as in Agent-R).
        revisits: What becomes of a candidate that leads back to a state of its own path: it is searched like any other ("keep", as in
            Agent-R), or the path ends there ("end"). Only an environment with snapshots can tell.
    """

    width: int = 4
    draw: Literal["policy", "admissible"] = "policy"
    deduplicate: Deduplicate = "effect"
    disasters: bool = True
    revisits: Literal["keep", "end"] = "keep"

    def __post_init__(self) -> None:
        if self.width < 1:
            raise Mistake("width of a sample stage is too small", found=self.width, expected="at least 1")


@dataclass(frozen=True, slots=True)
class MctsSettings:
    """Monte-Carlo tree search. The defaults are Agent-R's (arXiv:2501.11425), but for `SampleSettings`' temperature and the like.

    Attributes:
        sample: Decoding, limits of an episode (`max_turns` is the depth), concurrency, failures.
        expansion: How children are found.
        limits: When a search ends early.
        simulations: Walks from the root to the end of a path.
        exploration: c of UCT.
        leaves: Most leaves of a tree under expansion at once. With 1 the search is the published one, whatever runs beside it.
    """

    sample: SampleSettings = field(default_factory=lambda: SampleSettings(max_turns=20))
    expansion: Expansion = Expansion()
    limits: Limits = Limits()
    simulations: int = 8
    exploration: float = EXPLORATION
    leaves: int = 1

    def __post_init__(self) -> None:
        for name in ("simulations", "leaves"):
            if getattr(self, name) < 1:
                raise Mistake(f"{name} of a tree search is too small", found=getattr(self, name), expected="at least 1")
        if self.exploration < 0:
            raise Mistake("exploration of a tree search is negative", found=self.exploration, expected="0 or more")

    @property
    def requests(self) -> int:
        """Most requests that one tree has at the engine at once."""
        return self.leaves * self.expansion.width


@dataclass(frozen=True, slots=True)
class BestOfNSettings:
    """In each turn several candidates, of which a critic's best is played; without a critic, several whole episodes.

    Attributes:
        sample: Decoding, limits of an episode, concurrency, failures.
        width: Candidates of a turn; without a critic, episodes.
        limits: When it ends early.
    """

    sample: SampleSettings = field(default_factory=SampleSettings)
    width: int = 8
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.width < 1:
            raise Mistake("width of a sample stage is too small", found=self.width, expected="at least 1")

    @property
    def requests(self) -> int:
        """Most requests that one tree has at the engine at once; under limits, those of an episode (with a critic it is `width`)."""
        return 1 if self.limits.any else self.width


@dataclass(frozen=True, slots=True)
class BeamSettings:
    """The best partial episodes are kept after each turn.

    Attributes:
        sample: Decoding, limits of an episode, concurrency, failures.
        width: Partial episodes that are kept.
        expansion: How each is continued; its `width` is the number of candidates.
        limits: When it ends early.
    """

    sample: SampleSettings = field(default_factory=SampleSettings)
    width: int = 4
    expansion: Expansion = Expansion()
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.width < 1:
            raise Mistake("width of a sample stage is too small", found=self.width, expected="at least 1")

    @property
    def requests(self) -> int:
        """Most requests that one tree has at the engine at once."""
        return self.width * self.expansion.width
