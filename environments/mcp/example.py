"""Questions on the stock list of `stock_list.py`, which `environment: {id: mcp}` plays when no server is named."""

from __future__ import annotations

from agentloop import Task
from agentloop.environment.base import Split

from .stock_list import THINGS, price_of, stock_of


def questions(split: Split) -> list[Task]:
    """What one thing costs, how many there are, and what two cost together. Each thing that is asked for first is in one split only."""
    share = {"train": (0, 1), "dev": (2,), "test": (3,)}[split]
    tasks = []
    for index, thing in enumerate(THINGS):
        if index % 4 in share:
            other = THINGS[(index + 4) % len(THINGS)]
            for name, text, answer, things in (
                ("price", f"How many cents does the {thing} cost?", price_of(thing), [thing]),
                ("stock", f"How many pieces of {thing} are in stock?", stock_of(thing), [thing]),
                (
                    "price",
                    f"How many cents do the {thing} and the {other} cost together?",
                    price_of(thing) + price_of(other),
                    [thing, other],
                ),
            ):
                calls = [{"name": name, "arguments": {"thing": one}} for one in things]
                tasks.append(Task(f"{split}-{name}-{'-'.join(things)}", {"question": text, "answer": str(answer), "calls": calls}))
    return tasks
