"""Clip-cov against its formula, written out token by token."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import pytest

from agentloop.training.policy_settings import Covariance

torch = pytest.importorskip("torch")


def tensors(seed: int) -> tuple[Any, Any, Any, Any]:
    generator = torch.Generator().manual_seed(seed)
    logprobs, old = (-3 + torch.randn(6, 9, generator=generator) for _ in range(2))
    advantages = 2 * torch.randn(6, 1, generator=generator).expand(6, 9)
    mask = (torch.rand(6, 9, generator=generator) < 0.7).long()
    return logprobs, old, advantages, mask


@pytest.mark.parametrize("seed", range(4))
def test_candidates_are_unclipped_tokens_between_the_bounds(seed: int) -> None:
    """With a share of 1 all candidates sit out: exactly those of the formula."""
    from agentloop.training.covariance import is_clipped, sitting_out

    logprobs, old, advantages, mask = tensors(seed)
    clipped = is_clipped((logprobs - old).exp(), advantages, 0.2, 0.28)
    settings = Covariance(share=1.0, low=0.5, high=2.0)
    out = sitting_out(logprobs, advantages, mask, clipped, settings, torch.Generator().manual_seed(0))
    places = [(row, at) for row in range(6) for at in range(9) if mask[row, at]]
    mean_a = fmean(float(advantages[place]) for place in places)
    mean_p = fmean(float(logprobs[place]) for place in places)
    expected = set()
    for place in places:
        a, p = float(advantages[place]), float(logprobs[place])
        ratio = float((logprobs[place] - old[place]).exp())
        held = a * min(max(ratio, 0.8), 1.28) < a * ratio
        if not held and 0.5 < (a - mean_a) * (p - mean_p) < 2.0:
            expected.add(place)
    assert {tuple(place) for place in out.nonzero().tolist()} == expected and expected


def test_a_share_of_the_trained_tokens_sits_out_and_at_least_one() -> None:
    from agentloop.training.covariance import sitting_out

    logprobs, _, advantages, mask = tensors(1)
    nothing_clipped = torch.zeros_like(mask).bool()

    def count(share: float) -> int:
        settings = Covariance(share=share, low=-99.0, high=99.0)
        return int(sitting_out(logprobs, advantages, mask, nothing_clipped, settings, torch.Generator().manual_seed(0)).sum())

    trained = int(mask.sum())
    assert count(0.5) == int(0.5 * trained) and count(1e-9) == 1
    settings = Covariance(share=1.0, low=98.0, high=99.0)
    assert not sitting_out(logprobs, advantages, mask, nothing_clipped, settings, torch.Generator()).any()
    assert not sitting_out(logprobs, advantages, 0 * mask, nothing_clipped, settings, torch.Generator()).any()


def test_the_draw_follows_its_generator() -> None:
    from agentloop.training.covariance import sitting_out

    logprobs, _, advantages, mask = tensors(2)
    settings, clipped = Covariance(share=0.2, low=-99.0, high=99.0), torch.zeros_like(mask).bool()
    draws = [sitting_out(logprobs, advantages, mask, clipped, settings, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert not (draws[0] & (mask == 0)).any()
