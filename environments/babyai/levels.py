"""The levels of BabyAI by name, each as a function that makes its world.

Nineteen levels are those of the paper (Chevalier-Boisvert et al., "BabyAI: A Platform to Study the Sample Efficiency of Grounded Language
Learning", ICLR 2019, table 1). Eighteen of them come from the `minigrid` package; its `PutNext` is another level than the paper's, so that
one is made here from the package's parts. Every other level that the package registers as `BabyAI-NAME-v0` can be played by NAME too.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # minigrid imports pygame, which would greet on standard output

import gymnasium
import minigrid  # noqa: F401  registers the levels
from gymnasium.envs.registration import load_env_creator
from minigrid.envs.babyai.core import roomgrid_level
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel
from minigrid.envs.babyai.core.verifier import ObjDesc, PutNextInstr

# A level that draws an impossible mission says so on standard output and draws again. (`redirect_stdout` would be for all threads.)
setattr(roomgrid_level, "print", lambda *_arguments: None)  # noqa: B010

PAPER = (
    "GoToObj",
    "GoToRedBallGrey",
    "GoToRedBall",
    "GoToLocal",
    "PutNextLocal",
    "PickupLoc",
    "GoToObjMaze",
    "GoTo",
    "Pickup",
    "UnblockPickup",
    "Open",
    "Unlock",
    "PutNext",
    "Synth",
    "SynthLoc",
    "GoToSeq",
    "SynthSeq",
    "GoToImpUnlock",
    "BossLevel",
)
"""The levels of the paper, in its order: from one room with one object to all competencies at once."""


class PutNext(RoomGridLevel):
    """The paper's PutNext: nine rooms and eighteen objects, one of which is to be put next to another."""

    def gen_mission(self) -> None:
        """Draw objects and mission; called by the package until they are possible."""
        self.place_agent()
        self.connect_all()
        objects = self.add_distractors(num_distractors=18, all_unique=False)
        self.check_objs_reachable()
        moved, fixed = self._rand_subset(objects, 2)
        self.instrs = PutNextInstr(ObjDesc(moved.type, moved.color), ObjDesc(fixed.type, fixed.color))


@cache
def level_names() -> tuple[str, ...]:
    """All levels: those of the paper in its order, then the package's others by name."""
    found = {id.split("-")[1] for id in gymnasium.registry if id.startswith("BabyAI-")}
    return (*PAPER, *sorted(name for name in found - set(PAPER) if not name.endswith("Debug")))


def make_world(level: str, seed: int) -> Any:
    """A new `RoomGridLevel` of that name, drawn with that seed: the same pair is the same world. The name is one of `level_names`."""
    if level == "PutNext":
        world = PutNext()
    else:
        spec = gymnasium.registry[_id(level)]
        world = load_env_creator(spec.entry_point)(**spec.kwargs)  # as gymnasium.make does, without its wrappers
    world.reset(seed=seed)
    return world


@cache
def _id(level: str) -> str:
    """The package's id of a level, of the latest version."""
    return max(id for id in gymnasium.registry if id.startswith(f"BabyAI-{level}-v"))
