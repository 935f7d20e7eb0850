"""Back to a node of a tree: the environment in its state, and the conversation with its ids.

A state is reached by the snapshot of the node or of its nearest ancestor that has one, and from there (else from `reset`) by playing the
stored actions again. Whatever comes back is held against what the tree stores: the first observation, and the observation, reward and end
of every step. Where they part, the environment does not repeat itself and the node cannot be reached: that is a `Divergence`, a failure of
kind "environment.divergence", and never a node in another state.

The conversation is taken up with the ids that the turns store (`Conversation.follow`); nothing that the model has seen or produced is
tokenised again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from agentloop.environment.base import StepResult, Task
from agentloop.environment.failure import EnvironmentFailure
from agentloop.trace.conversation import Conversation
from agentloop.trace.tree import Turn

MOST_SNAPSHOTS = 512
"""Snapshots of one tree that are kept at once."""


class ReplayPlayer(Protocol):
    """An environment instance that can be brought back to a state."""

    async def reset(self, task: Task) -> str: ...

    async def step(self, action: str) -> StepResult: ...

    async def snapshot(self) -> Any | None: ...

    async def restore(self, state: Any) -> None: ...


class Divergence(EnvironmentFailure):
    """A replay that did not come back as it was stored, kind "environment.divergence".

    Attributes:
        turn: The turn at which they parted; None for `reset`.
        part: What differs: "first observation", "observation", "reward", "done" or "truncated".
        stored: What the tree has.
        found: What came back.
    """

    def __init__(self, task: str, turn: str | None, part: str, stored: object, found: object) -> None:
        self.turn = turn
        self.part = part
        self.stored = stored
        self.found = found
        where = "reset" if turn is None else f"the action of turn {turn}"
        super().__init__(
            "environment.divergence",
            f"task {task!r} does not repeat itself: the {part} of {where} was {_short(stored)} and is {_short(found)} when it is replayed; "
            "an environment must answer equal actions equally, or give snapshots",
        )


class Snapshots:
    """States of the nodes of one tree. Those used longest ago are forgotten, and their nodes reached by replay.

    Args:
        most: How many are kept at once.
    """

    def __init__(self, most: int = MOST_SNAPSHOTS) -> None:
        self._most = most
        self._states: OrderedDict[str | None, Any] = OrderedDict()
        self._supported = True

    async def take(self, player: ReplayPlayer, turn: str | None) -> Any | None:
        """Keep the state that `player` is in as that of node `turn` (None: the root) and return it; None where there are no snapshots.

        Raises:
            EnvironmentFailure: The environment broke.
        """
        if not self._supported:
            return None
        state = await player.snapshot()
        if state is None:
            self._supported = False
            return None
        self._states[turn] = state
        self._states.move_to_end(turn)
        while len(self._states) > self._most:
            self._states.popitem(last=False)
        return state

    def find(self, turn: str | None) -> Any | None:
        """The state of a node, or None."""
        if turn not in self._states:
            return None
        self._states.move_to_end(turn)
        return self._states[turn]

    def forget(self, turn: str | None) -> None:
        """Drop the state of a node."""
        self._states.pop(turn, None)

    def __len__(self) -> int:
        return len(self._states)


@dataclass(frozen=True, slots=True)
class Reached:
    """How a node was reached.

    Attributes:
        restored: Whether a snapshot was used.
        replayed: Actions that were played again.
        total: Return of the path up to the node.
    """

    restored: bool
    replayed: int
    total: float


async def reach(
    player: ReplayPlayer, task: Task, path: Sequence[Turn], *, first_observation: str, snapshots: Snapshots | None = None
) -> Reached:
    """Bring `player` to the state after the last turn of `path` (an empty one: after `reset`).

    Args:
        player: An instance with no episode that is still needed.
        task: The task of the tree.
        path: Turns from the root on, as `Tree.path` gives them. Turns without an action (summaries) are passed over.
        first_observation: What `reset` returned when the tree was made.
        snapshots: States of nodes of this tree, in which to look for a shorter way.

    Raises:
        Divergence: The environment came back otherwise than it is stored.
        EnvironmentFailure: The environment broke. A snapshot that could not be restored is forgotten, so that trying again replays.
        ValueError: A turn of the path acted, but its step broke: there is no state after it.
    """
    for turn in path:
        if turn.action is not None and turn.observation is None:
            raise ValueError(f"turn {turn.id}: its step broke, so that there is no state after it to return to")
    begin = await _restore(player, path, snapshots)
    if begin is None:
        found = await player.reset(task)
        if found != first_observation:
            raise Divergence(task.id, None, "first observation", first_observation, found)
    again = [turn for turn in path[begin or 0 :] if turn.action is not None]
    for turn in again:
        assert turn.action is not None
        _compare(task, turn, await player.step(turn.action))
    return Reached(begin is not None, len(again), sum(turn.reward for turn in path))


def retrace(conversation: Conversation, path: Sequence[Turn], *, first_observation: str) -> str:
    """Bring a conversation that has not started to the node that `path` leads to, with the very ids that its turns store.

    Args:
        conversation: Made as the one that the turns were sampled in: same renderer, system prompt, examples and overflow policy.
        path: Turns of its seat from the root on.
        first_observation: What `reset` returned.

    Returns:
        The observation after the path, which `conversation.observe` makes the next prompt of.

    Raises:
        ValueError: The turns do not continue each other, or were sampled under other settings.
    """
    observation = first_observation
    for turn in path:
        conversation.follow(observation, turn)
        if turn.observation is not None:
            observation = turn.observation
    return observation


async def _restore(player: ReplayPlayer, path: Sequence[Turn], snapshots: Snapshots | None) -> int | None:
    """Restore the deepest snapshot along the path: how many of its turns lie before that state; None if there is none."""
    if snapshots is None:
        return None
    for length in range(len(path), -1, -1):
        turn = path[length - 1].id if length else None
        state = snapshots.find(turn)
        if state is not None:
            try:
                await player.restore(state)
            except EnvironmentFailure:
                snapshots.forget(turn)
                raise
            return length
    return None


def _compare(task: Task, turn: Turn, result: StepResult) -> None:
    truncated = turn.truncated == "environment"
    parts = (
        ("observation", turn.observation, result.observation),
        ("reward", turn.reward, result.reward),
        ("done", turn.done, result.done),
        ("truncated", truncated, result.truncated and not result.done),
    )
    for part, stored, found in parts:
        if stored != found:
            raise Divergence(task.id, turn.id, part, stored, found)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
