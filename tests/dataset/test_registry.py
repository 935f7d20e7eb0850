"""Builders are found by the name of their file, and their options are checked."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from agentloop.dataset import registry
from agentloop.dataset.schema import ROWS
from agentloop.dataset.self_imitation import Settings, build
from agentloop.errors import Mistake
from agentloop.trace.author import Author
from agentloop.trace.render import Renderer
from tests.sampling.world import CharacterTokenizer


@pytest.mark.parametrize("name", registry.names())
def test_every_builder_keeps_the_contract(name: str):
    builder = registry.find(name)
    assert dataclasses.is_dataclass(builder.settings) and builder.settings.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert {"stage", "iteration"} <= set(inspect.signature(builder.build).parameters)
    more = {"author": Author(Renderer(CharacterTokenizer()))} if builder.writes else {}
    assert list(builder.build([], builder.configure({}), stage="s", iteration=0, **more)) == []


def test_builders_that_write_turns_and_builders_of_pairs_say_so():
    assert {name for name in registry.names() if registry.find(name).writes} == {"reflection", "direct_revision"}
    assert {name for name in registry.names() if registry.find(name).format is not ROWS} == {"preference"}


def test_a_builder_is_found_by_name_and_configured():
    builder = registry.find("self_imitation")
    assert "self_imitation" in registry.names() and builder.build is build
    assert builder.configure({"min_reward": 0.5, "best": 2}) == Settings(min_reward=0.5, best=2)


def test_unknown_names_and_options_are_mistakes_with_the_nearest_word():
    with pytest.raises(Mistake, match="did you mean 'self_imitation'"):
        registry.find("self_imitaton")
    with pytest.raises(Mistake, match="did you mean 'min_reward'"):
        registry.find("self_imitation").configure({"min_rewards": 1})
