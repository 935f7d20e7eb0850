"""Games of the `textworld` package: made from a challenge, its settings and a seed, once, into the cache folder.

Making one takes a second or two (the world is written as an Inform 7 program and compiled to `.z8`), so it is kept for all who ask again:
other instances, other processes, other runs. The name of its folder is a hash of all that it follows from, the package's version included.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs
import textworld
import textworld.challenges
from filelock import FileLock

from agentloop.environment.base import Split

Challenge = Literal["coin_collector", "cooking", "simple", "treasure_hunter"]

USUAL: Mapping[Challenge, Mapping[str, Any]] = {
    "coin_collector": {"level": 5},
    "cooking": {"recipe": 1, "take": 1, "go": 1, "open": False, "cook": False, "cut": False, "drop": False},
    "simple": {"rewards": "dense", "goal": "detailed"},
    "treasure_hunter": {"level": 5},
}
"""The settings of each challenge, and their defaults here."""

COOKING_SPLITS: Mapping[Split, str] = {"train": "train", "dev": "valid", "test": "test"}
"""The cooking game brings splits of its own, in which foods and their preparations are held out; the simple game a test distribution."""

LOCK_TIMEOUT = 300.0

_making = threading.Lock()


def cache_folder() -> Path:
    """Where games are kept: in `AGENTLOOP_CACHE`, else in the user's cache folder."""
    override = os.environ.get("AGENTLOOP_CACHE")
    return (Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("agentloop"))) / "textworld"


def check_settings(challenge: Challenge, settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings of a challenge. Raises ValueError for one that it has not, or that the package's own command line would refuse."""
    usual = USUAL[challenge]
    for name, value in settings.items():
        if name not in usual:
            raise ValueError(f"the challenge {challenge} has no setting {name!r}; it has {', '.join(usual)}")
        if type(value) is not type(usual[name]):
            raise ValueError(f"the setting {name} of {challenge} is of type {type(usual[name]).__name__}, found {value!r}")
    chosen = {**usual, **settings}
    parser = argparse.ArgumentParser(exit_on_error=False)
    textworld.challenges.CHALLENGES[f"tw-{challenge}"][2](parser)
    words: list[str] = []
    for name, value in chosen.items():
        words += [f"--{name}"] * value if isinstance(value, bool) else [f"--{name}", str(value)]
    try:
        parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise ValueError(f"the challenge {challenge} refuses its settings: {error}") from None
    return chosen


def game_file(challenge: Challenge, settings: Mapping[str, Any], seed: int, split: Split) -> Path:
    """The `.z8` file of a game, with its `.json` beside it; made if it is not there.

    Raises:
        Timeout: Another process has been making it for `LOCK_TIMEOUT` seconds.
    """
    version = importlib.metadata.version("textworld")
    identity = json.dumps([version, challenge, dict(settings), seed, split if challenge in ("cooking", "simple") else ""], sort_keys=True)
    folder = cache_folder() / f"{challenge}-{seed}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    game = folder / "game.z8"
    if game.exists():
        return game
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _making, FileLock(f"{folder}.lock", timeout=LOCK_TIMEOUT):  # threads: the package draws from random numbers of the process
        if not game.exists():
            partial = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
            try:
                _make(challenge, settings, seed, split, partial / game.name)
                os.replace(partial, folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    return game


def walkthrough(game: Path) -> list[str]:
    """Commands that win a game."""
    found = textworld.Game.load(str(game.with_suffix(".json"))).metadata.get("walkthrough")
    return [str(command) for command in found or ()]


def _make(challenge: Challenge, settings: Mapping[str, Any], seed: int, split: Split, path: Path) -> None:
    """Make and compile a game."""
    textworld.g_rng.set_seed(seed)  # what the options do not seed is drawn from here
    options = textworld.GameOptions()
    options.seeds = seed
    options.path = str(path)
    chosen = dict(settings)
    if challenge == "cooking":
        chosen |= {"recipe_seed": seed, "split": COOKING_SPLITS[split]}
    if challenge == "simple":
        chosen["test"] = split == "test"
    _, make, _ = textworld.challenges.CHALLENGES[f"tw-{challenge}"]
    textworld.generator.compile_game(make(chosen, options), options)
