"""What a builder has to say of its work beside the rows: what it left out, and facts that a later stage needs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class BuildReport:
    """Filled while the rows are drawn from a builder that takes a `report`.

    Attributes:
        left_out: How much was left out, by what and why, for example "groups without variance".
        group_means: Mean return of each group that was compared, in the order of the trees.
        channels: Sum of |weight * advantage| by channel of rewards: who decides what is learned.
    """

    left_out: Counter[str] = field(default_factory=Counter)
    group_means: list[float] = field(default_factory=list)
    channels: dict[str, float] = field(default_factory=dict)
