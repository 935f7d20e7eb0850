"""The games of ALFWorld on this machine: found in a folder, never downloaded by us."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

from agentloop.environment.base import Split
from agentloop.errors import Mistake

Kind = Literal[
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
]

FOLDERS: Mapping[Split, str] = {"train": "train", "dev": "valid_seen", "test": "valid_unseen"}
"""The official splits: what is tuned is tuned in rooms that were seen in training, what is tested in rooms that were not."""

DOWNLOAD = "pip install alfworld && alfworld-download"
_TAIL = 4096


def data_folder(given: str) -> Path:
    """The folder with `train`, `valid_seen` and `valid_unseen`. Raises `Mistake` with the command that downloads it."""
    root = Path(given or os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld").expanduser()
    for folder in (root, root / "json_2.1.1"):
        if (folder / FOLDERS["train"]).is_dir():
            return folder
    raise Mistake(
        f"there is no ALFWorld data in {str(root)!r}; download it (about 2 GB) with: {DOWNLOAD} -- or say where it is by the option "
        "data or the variable ALFWORLD_DATA",
        expected="a folder with json_2.1.1/train, json_2.1.1/valid_seen and json_2.1.1/valid_unseen",
    )


@lru_cache(maxsize=16)
def game_files(folder: Path, split: Split, kinds: tuple[Kind, ...]) -> tuple[str, ...]:
    """The games of a split, by path within the folder, sorted: those of these kinds that can be solved, as the package chooses them."""
    found = []
    for path in sorted((folder / FOLDERS[split]).glob("*/*/game.tw-pddl")):
        name = path.parent.parent.name
        if "movable" not in str(path) and "Sliced" not in str(path) and name.partition("-")[0] in kinds and _solvable(path):
            found.append(path.relative_to(folder).as_posix())
    return tuple(found)


def _solvable(path: Path) -> bool:
    """What the file says of itself. The key is written last, so most often the end is enough: there are thousands of files of 300 kB."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        end = file.read().decode("utf-8", "ignore")
    if '"solvable": true' in end:
        return True
    return json.loads(path.read_text(encoding="utf-8")).get("solvable") is True
