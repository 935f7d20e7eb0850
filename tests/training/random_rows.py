"""Rows and pairs of random ids, for tests of what training does with them."""

from __future__ import annotations

import random

from agentloop.dataset.preference_row import PreferenceRow, Side
from agentloop.dataset.row import Provenance, Row
from agentloop.dataset.segment_row import row_id

VOCABULARY = 96


def random_rows(count: int, *, seed: int = 0, longest: int = 40) -> list[Row]:
    """Rows of random ids with two trained stretches each, the second ending in the stop token (id 1)."""
    generator = random.Random(seed)
    rows = []
    for index in range(count):
        ids: list[int] = []
        mask: list[int] = []
        for _turn in range(2):
            prompt, completion = generator.randint(2, longest // 4), generator.randint(1, longest // 4)
            ids += [generator.randrange(2, VOCABULARY) for _ in range(prompt + completion)] + [1]
            mask += [0] * prompt + [1] * (completion + 1)
        provenance = Provenance(f"000/trees/task-{index}", ("0.0", "0.1"))
        name = row_id(ids, mask, 1.0, provenance)
        rows.append(Row(name, tuple(ids), tuple(mask), None, "actor", f"task-{index}", 1.0, False, "base", 1.0, provenance))
    return rows


def random_pairs(count: int, *, seed: int = 0, longest: int = 40, shared: int = 0) -> list[PreferenceRow]:
    """Pairs of random ids: behind a context, `shared` ids of which all pairs have, sides of two trained stretches with an observation
    between.
    """
    generator = random.Random(seed)

    def ids(least: int) -> list[int]:
        return [generator.randrange(2, VOCABULARY) for _ in range(generator.randint(least, longest // 4))]

    def side(task: str, value: float) -> Side:
        first, observation, second = [*ids(1), 1], ids(2), [*ids(1), 1]
        mask = (1,) * len(first) + (0,) * len(observation) + (1,) * len(second)
        return Side((*first, *observation, *second), mask, value, Provenance(f"000/trees/{task}", ("0.0", "0.1")))

    pairs = []
    for index in range(count):
        task = f"task-{index}"
        context = (*(2 + place % 90 for place in range(shared)), *ids(2))
        pairs.append(PreferenceRow(f"pair-{index:03d}", context, side(task, 1.0), side(task, 0.0), "actor", task, False, "base", 1.0))
    return pairs
