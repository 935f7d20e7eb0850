"""Groups of episodes that are compared with each other, and the rewards of their turns, channel by channel.

What one seat did in an episode that ended is an `Episode`; those of one tree and seat are a `Group`. What broke is no outcome, nor are the
leaves that a search never went on from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from agentloop.dataset.shaping import tool_uses
from agentloop.trace.episode import ended
from agentloop.trace.tree import Tree, Turn

REWARD, TOOLS = "reward", "tools"
"""Channels that are no critic's: what the environment gave, and the use of tools."""


@dataclass(frozen=True, slots=True)
class Episode:
    """What one seat did in one episode.

    Attributes:
        leaf: The episode's last turn, whoever's.
        turns: The seat's own turns in order, those taken over from another tree left out.
        rewards: By channel the reward of each of the turns, not weighted.
        total: The shaped return: the weighted sum of all of them.
    """

    leaf: Turn
    turns: tuple[Turn, ...]
    rewards: Mapping[str, tuple[float, ...]]
    total: float


@dataclass(frozen=True, slots=True)
class Group:
    """The episodes of one tree in one seat."""

    tree: Tree
    seat: str
    episodes: tuple[Episode, ...]

    @property
    def role(self) -> str:
        """Who played the seat."""
        return self.episodes[0].turns[0].role

    @property
    def totals(self) -> list[float]:
        """The episodes' shaped returns."""
        return [episode.total for episode in self.episodes]


def groups_of(
    tree: Tree, weights: Mapping[str, float], *, tool_turns: int, role: str | None = None, seat: str | None = None
) -> Iterator[Group]:
    """The groups of a tree, one a seat, in the order in which the seats first acted.

    Args:
        tree: A whole tree.
        weights: Weight by channel: `REWARD`, `TOOLS` or a critic's name. A verdict's value is a reward of the turn that it judges.
        tool_turns: Most turns an episode whose use of a tool counts.
        role, seat: Only turns of these; None means any.
    """
    by_seat: dict[str, list[Episode]] = {}
    judged = _judged(tree, weights)
    for leaf in ended(tree):
        own = [turn for turn in tree.path(leaf.id) if not turn.given and not turn.from_critic]
        wanted = [turn for turn in own if role in (None, turn.role) and seat in (None, turn.seat)]
        for name in dict.fromkeys(turn.seat for turn in wanted):
            turns = tuple(turn for turn in wanted if turn.seat == name)
            rewards = {critic: tuple(values.get(turn.id, 0.0) for turn in turns) for critic, values in judged.items()}
            rewards |= {REWARD: tuple(turn.reward for turn in turns), TOOLS: tool_uses(turns, tool_turns)}
            total = sum(weight * sum(rewards[channel]) for channel, weight in weights.items())
            by_seat.setdefault(name, []).append(Episode(leaf, turns, rewards, total))
    for name, episodes in by_seat.items():
        yield Group(tree, name, tuple(episodes))


def _judged(tree: Tree, weights: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """By critic the value of each turn that it gave one; of several verdicts on a turn the last."""
    found: dict[str, dict[str, float]] = {critic: {} for critic in weights if critic not in (REWARD, TOOLS)}
    for verdict in tree.verdicts:
        if verdict.critic in found and verdict.value is not None:
            found[verdict.critic][verdict.turn] = verdict.value
    return found
