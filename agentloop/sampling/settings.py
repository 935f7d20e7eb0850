"""What a `sample` stage of a recipe says about groups of episodes, in the recipe's own words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from agentloop.errors import Mistake

Overflow = Literal["stop", "window", "summarise"]


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """How groups of episodes are played.

    Attributes:
        samples: Episodes of each task (the size of the group).
        temperature: Sampling temperature; 0 is greedy.
        top_p: Nucleus truncation; 1.0 means none.
        top_k: Truncation to the k likeliest tokens; 0 means none.
        max_tokens: Most ids that one turn may produce, stop token included.
        max_turns: Turns after which an episode is cut (truncated "turns").
        overflow: What happens when the context is full: "stop" ends the episode (truncated "context"), "window" drops the oldest exchanges,
            "summarise" replaces them by a summary.
        concurrency: Most requests at the engine at once. Episodes that wait for their environment do not count.
        episodes: Most episodes alive at once, waiting ones included, each with an environment instance; None means
            four times the concurrency.
        retries: How often an episode that broke is played again from its start before it counts as failed.
        max_failures: Share of failed episodes (0 to 1) above which the stage stops, once `few` episodes have started.
        few: Episodes below which the share is not judged before the stage's end.
        role: The role that plays, kept with each turn.
    """

    samples: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    max_turns: int = 20
    overflow: Overflow = "stop"
    concurrency: int = 32
    episodes: int | None = None
    retries: int = 1
    max_failures: float = 0.2
    few: int = 8
    role: str = "actor"

    def __post_init__(self) -> None:
        for name in ("samples", "max_tokens", "max_turns", "concurrency"):
            if getattr(self, name) < 1:
                raise Mistake(f"{name} of a sample stage is too small", found=getattr(self, name), expected="at least 1")
        if self.episodes is not None and self.episodes < 1:
            raise Mistake("episodes of a sample stage is too small", found=self.episodes, expected="at least 1")
        if self.temperature < 0:
            raise Mistake("temperature of a sample stage is negative", found=self.temperature, expected="0 (greedy) or more")
        if not 0 <= self.max_failures <= 1:
            raise Mistake("max_failures of a sample stage is not a share", found=self.max_failures, expected="0 to 1")

    @property
    def alive(self) -> int:
        """Most episodes alive at once: how many environment instances a pool for these settings needs."""
        return self.episodes if self.episodes is not None else 4 * self.concurrency
