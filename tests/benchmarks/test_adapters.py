"""The benchmark of adapters runs on any model."""

from __future__ import annotations

import pytest

from benchmarks.adapters import COMMON, CONCURRENCY, prompts


@pytest.mark.parametrize("vocabulary", [40, 97, 49_152])
def test_prompts_are_of_the_models_own_ids(vocabulary: int) -> None:
    made = prompts(vocabulary)
    assert {len(prompt) for prompt in made} == {COMMON + 1} and len(made) == CONCURRENCY
    assert all(0 < id < vocabulary - 1 for prompt in made for id in prompt)
    assert len({prompt[1:] for prompt in made}) == 1, "one prefix, which a cache could share but for the first id"
    assert len({prompt[0] for prompt in made}) >= min(CONCURRENCY, vocabulary // 2)
