"""The folder in which a training that samples for itself and whoever samples for it meet: rounds one way, adapters the other.

::

    FOLDER/00000/round.json   what round 0 is trained on: rows, the options of its loss, what is told of it
    FOLDER/00001/adapter      the policy after one round, which plays a later one
    FOLDER/00001/round.json

Both appear by a rename, whole or not at all, and stay until the training is over, so that either side, killed and started again, finds
what it had and what it had been given. There is no other word between the two. Importing this module imports no torch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agentloop.errors import WaitedTooLong
from agentloop.trace.atomic import publish

POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Round:
    """One round as it is handed to the training.

    Attributes:
        number: From 0.
        rows: Path of its rows with advantages; None where the round made none.
        options: Those of `PolicySettings`, schedules read at this round.
        facts: What is told of the round: JSON values by name.
    """

    number: int
    rows: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Exchange:
    """The folder; both sides have one of these."""

    folder: Path

    def place(self, number: int) -> Path:
        """Folder of a round."""
        return self.folder / f"{number:05d}"

    def adapter(self, number: int) -> Path:
        """Where the policy after `number` rounds appears; there is none for 0, which is the training's start."""
        return self.place(number) / "adapter"

    def offer(self, found: Round) -> None:
        """Hand a round over; it is never taken back."""
        self.place(found.number).mkdir(parents=True, exist_ok=True)
        with publish(self.place(found.number) / "round.json") as partial:
            partial.write_text(json.dumps(asdict(found), sort_keys=True))

    def round(self, number: int) -> Round | None:
        """The round, if it was handed over."""
        path = self.place(number) / "round.json"
        return Round(**json.loads(path.read_text())) if path.is_file() else None

    def await_round(self, number: int, seconds: float, *, now: Callable[[], float] = time.monotonic) -> Round:
        """The round, when it is there. Raises `WaitedTooLong`."""
        began = now()
        while (found := self.round(number)) is None:
            if now() - began > seconds:
                raise WaitedTooLong(f"round {number} of an online training", seconds, "whoever samples has handed nothing over")
            time.sleep(POLL_SECONDS)
        return found
