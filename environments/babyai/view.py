"""What the agent sees and holds, in words: objects and walls by how many steps forward, left and right of the agent they are.

After BabyAI-Text: Carta et al., "Grounding Large Language Models in Interactive Environments with Online Reinforcement Learning", 2023.
"""

from __future__ import annotations

from typing import Any


def describe(world: Any) -> str:
    """The agent's view in words: one line an object, nearest first, then the walls ahead and to both sides, then what it carries."""
    view, _ = world.gen_obs_grid()  # turned so that the agent looks up from the middle of the lowest row; what it cannot see is empty
    middle, lowest = view.width // 2, view.height - 1
    seen = []
    for column in range(view.width):
        for row in range(view.height):
            thing = view.get(column, row)
            if thing is not None and thing.type != "wall" and (column, row) != (middle, lowest):
                forward, right = lowest - row, column - middle
                seen.append((forward + abs(right), forward, right, f"{article(named(thing))}, {_place(forward, right)}"))
    lines = [f"- {text}" for *_, text in sorted(seen)] or ["- no objects"]
    walls = [
        f"{steps} {side}"
        for side, steps in (
            ("forward", _wall([view.get(middle, row) for row in reversed(range(lowest))])),
            ("left", _wall([view.get(column, lowest) for column in reversed(range(middle))])),
            ("right", _wall([view.get(column, lowest) for column in range(middle + 1, view.width)])),
        )
        if steps
    ]
    carried = article(named(world.carrying)) if world.carrying is not None else "nothing"
    return "\n".join(["You see:", *lines, f"Walls, in steps: {', '.join(walls) or 'none near'}", f"You carry {carried}."])


def named(thing: Any) -> str:
    """An object in words: "red ball", "locked blue door"."""
    if thing.type != "door":
        return f"{thing.color} {thing.type}"
    return f"{'open' if thing.is_open else 'locked' if thing.is_locked else 'closed'} {thing.color} door"


def article(name: str) -> str:
    """A name with its article: "an open red door"."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _place(forward: int, right: int) -> str:
    """Where something is, from the agent: "2 steps forward and 1 step left"."""
    parts = [f"{_steps(forward)} forward"] if forward else []
    if right:
        parts.append(f"{_steps(abs(right))} {'right' if right > 0 else 'left'}")
    return " and ".join(parts)


def _steps(count: int) -> str:
    return f"{count} step" if count == 1 else f"{count} steps"


def _wall(cells: list[Any]) -> int:
    """Distance of the first wall along a line of cells, in steps; 0 if none is seen."""
    return next((steps for steps, cell in enumerate(cells, start=1) if cell is not None and cell.type == "wall"), 0)
