"""Calls of the `textarena` package in which its own games mix up the arguments, put right: they would show a number for a reason.

Countdown, Cryptarithm, Slitherlink and ThreeCardMonte pass reward and reason of an invalid move, or player and text of a message, the wrong
way round. What is what can be told by its type.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from textarena.core import GAME_ID, State
from textarena.state import SinglePlayerState


@cache
def mend() -> None:
    """Mend the package, once a process."""
    SinglePlayerState.set_invalid_move = _ordered_invalid_move(SinglePlayerState.set_invalid_move)
    State.add_observation = _ordered_observation(State.add_observation)


def _ordered_invalid_move(original: Callable[..., None]) -> Callable[..., None]:
    def set_invalid_move(self: Any, reason: Any = None, reward: Any = -1.0) -> None:
        if isinstance(reward, str):
            reason, reward = reward, reason
        original(self, reason=reason, reward=reward)

    return set_invalid_move


def _ordered_observation(original: Callable[..., None]) -> Callable[..., None]:
    def add_observation(self: Any, message: Any, observation_type: Any, from_id: Any = GAME_ID, to_id: int = -1) -> None:
        if isinstance(observation_type, str):
            from_id, message, observation_type = message, observation_type, from_id
        original(self, message=message, observation_type=observation_type, from_id=from_id, to_id=to_id)

    return add_observation
