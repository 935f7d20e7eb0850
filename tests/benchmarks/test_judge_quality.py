"""The judges of the benchmark that are no model: what is known of them without asking one."""

from __future__ import annotations

import pytest

from agentloop.trace.verdict import BAD, GOOD
from benchmarks import judge_quality


async def test_constant_judges_have_the_quality_that_they_must(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_quality, "CHANCES", 2)
    trees = await judge_quality.planted_trees(6)
    assert len(trees) == 6 and len({tree.task for tree in trees}) == 6
    good = await judge_quality.of_nobody(trees, lambda seed: GOOD, "good")
    bad = await judge_quality.of_nobody(trees, lambda seed: BAD, "bad")
    assert (good.planted, good.clean, good.unwalked, good.offsets) == (6, 6, 0, {"none": 6})
    assert bad.false_alarms is not None and bad.false_alarms.value == 1.0
    assert all(isinstance(offset, int) and offset <= 0 for offset in bad.offsets), "the first step, or before the planted one"
    for share, same in ((0.0, good), (1.0, bad)):
        chance = await judge_quality.by_chance(trees, share)
        assert chance["recall"] == (same.recall.value if same.recall else None)
        assert chance["precision"] == (same.precision.value if same.precision else None)
