"""Credit: which of an episode's turns earned its rewards. Plain functions of rewards and of places of turns; no trees, no ids.

episode   Every turn gets the advantage of the whole episode (GRPO, arXiv:2402.03300, "outcome supervision").
turn      A turn gets what came after it: the discounted return from there on, compared with the group's other episodes at the same turn.
siblings  A turn gets what its subtree was worth, compared with its siblings' (as in tree-structured GRPO, arXiv:2509.21240, and in process
          rewards from search): a comparison at the very state in which the turn was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

from agentloop.dataset.relative import Against, advantages

Credit = Literal["episode", "turn", "siblings"]


def returns_to_go(rewards: Sequence[float], discount: float) -> list[float]:
    """G_t = r_t + discount * G_(t+1), for each turn of one episode; the discount is a turn's, not a token's."""
    found = [0.0] * len(rewards)
    following = 0.0
    for at in reversed(range(len(rewards))):
        following = rewards[at] + discount * following
        found[at] = following
    return found


def turn_advantages(
    episodes: Sequence[Sequence[float]], *, discount: float, against: Against = "group", normalise: bool = True
) -> list[list[float]]:
    """Advantages of each turn of each episode of a group, from the rewards of their turns.

    Turn t of an episode is compared with turn t of those episodes that came so far: with a discount below 1, what a turn is worth depends
    on how late it comes. Where an episode is the last one still going there is nobody to compare it with, and it is measured against the
    returns of the last turn at which it had company.

    With one reward at the end of each episode and discount 1, episodes of equal length have the same advantage in every turn, that of
    `advantages` of their returns.
    """
    gains = [returns_to_go(rewards, discount) for rewards in episodes]
    found: list[list[float]] = [[] for _ in episodes]
    company: list[float] = []
    for turn in range(max(map(len, gains), default=0)):
        present = [at for at, gain in enumerate(gains) if len(gain) > turn]
        values = [gains[at][turn] for at in present]
        if len(present) > 1 or turn == 0:
            company = values
            for at, value in zip(present, advantages(values, against=against, normalise=normalise), strict=True):
                found[at].append(value)
        else:
            found[present[0]].append(_of_the_last(values[0], company, against=against, normalise=normalise))
    return found


def _of_the_last(gain: float, company: Sequence[float], *, against: Against, normalise: bool) -> float:
    """The advantage of a turn that has no counterpart, as if it stood in its own place among the returns `company`."""
    return advantages([gain, *company], against=against, normalise=normalise)[0]


def subtree_values(parents: Mapping[str, str | None], ends: Mapping[str, float]) -> dict[str, float]:
    """What each turn of a tree was worth: the mean return of the episodes that ended in it or below it; turns without any are left out.

    Args:
        parents: Parent by turn, every parent among the keys or None; in any order.
        ends: Return by the turn in which an episode ended.
    """
    below: dict[str, list[float]] = {}
    for end, value in ends.items():
        link: str | None = end
        while link is not None:
            below.setdefault(link, []).append(value)
            link = parents[link]
    return {turn: fmean(values) for turn, values in below.items()}


def sibling_advantages(
    parents: Mapping[str, str | None], ends: Mapping[str, float], *, against: Against = "group", normalise: bool = True
) -> dict[str, float]:
    """The advantage of each turn that has a value over its siblings'. A turn without siblings was no choice, and gets 0."""
    values = subtree_values(parents, ends)
    families: dict[str | None, list[str]] = {}
    for turn in values:
        families.setdefault(parents[turn], []).append(turn)
    found: dict[str, float] = {}
    for family in families.values():
        compared = advantages([values[turn] for turn in family], against=against, normalise=normalise)
        found |= zip(family, compared, strict=True)
    return found
