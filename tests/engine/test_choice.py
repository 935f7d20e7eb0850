"""Which ids may come next when a completion must be one of a few texts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agentloop.engine.base import GenerationRequest
from agentloop.engine.choice import Choices

STOPS = (0, 1)

sequences = st.lists(st.lists(st.integers(2, 5), min_size=1, max_size=4).map(tuple), min_size=1, max_size=5)


@given(choices=sequences, picks=st.lists(st.integers(0, 100), min_size=6, max_size=6))
def test_whatever_is_picked_ends_as_one_of_the_choices(choices: list[tuple[int, ...]], picks: list[int]) -> None:
    guide = Choices(choices, STOPS)
    produced: list[int] = []
    for pick in picks:
        allowed = sorted(guide.allowed(produced))
        assert allowed
        token = allowed[pick % len(allowed)]
        if token in STOPS:
            break
        produced.append(token)
    assert token in STOPS and tuple(produced) in choices


@given(choices=sequences, data=st.data())
def test_every_choice_can_be_reached(choices: list[tuple[int, ...]], data: st.DataObject) -> None:
    guide = Choices(choices, STOPS)
    wanted = data.draw(st.sampled_from(choices))
    for length in range(len(wanted)):
        assert wanted[length] in guide.allowed(wanted[:length])
    assert frozenset(STOPS) <= guide.allowed(wanted)


def test_logits_of_other_ids_are_minus_infinity() -> None:
    logits_V = torch.tensor([0.5, 1.0, 2.0, 3.0, 4.0, 5.0])
    constrained_V = Choices([(2, 3), (2,)], (0,)).constrain(logits_V, (2,))
    assert constrained_V.tolist() == [0.5, -torch.inf, -torch.inf, 3.0, -torch.inf, -torch.inf]


@pytest.mark.parametrize(("choices", "stops"), [(("a", ""), (1,)), (("a",), ())])
def test_what_could_never_end_is_refused(choices: tuple[str, ...], stops: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="needs a stop token"):
        GenerationRequest((5,), 8, stops, choices=choices)
