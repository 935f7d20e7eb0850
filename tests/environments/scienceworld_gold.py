"""The package's gold path of one dev variation of each of ScienceWorld's thirty tasks, found once and kept in `scienceworld_gold.json`.

    python -m tests.environments.scienceworld_gold

To find them takes minutes, to play them seconds. They are found anew for a version of the package in which they are others.
"""

from __future__ import annotations

import json
from pathlib import Path

from agentloop.environment.registry import find

FILE = Path(__file__).with_suffix(".json")


def main() -> None:
    """Find the paths and write the file; a path that does not solve its task is left out, since the package's finder fails on some."""
    environment = find("scienceworld").make(variations=1, steps=0)
    found: dict[str, list[str]] = {}
    for task in environment.tasks("dev"):
        actions = list(environment.demonstration(task) or [])
        environment.reset(task)
        played: list[str] = []
        total = 0.0
        for action in actions:
            result = environment.step(action)
            played.append(action)
            total += result.reward
            if result.done:
                break
        solved = environment.success(total)
        print(f"{task.id:60} {len(played):4} actions, {'solved' if solved else f'not solved: {total:.2f}'}", flush=True)
        if solved:
            found[task.id] = played
    environment.close()
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
