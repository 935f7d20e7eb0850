"""Clip-cov: tokens whose advantage and log-probability rise together drive the entropy down, so a few of them sit out
(arXiv:2505.22617, section 4; the form of SPEAR's code, arXiv:2509.22601).
"""

from __future__ import annotations

import torch

from agentloop.training.policy_settings import Covariance


def covariances(logprobs_BN: torch.Tensor, advantages_BN: torch.Tensor, mask_BN: torch.Tensor) -> torch.Tensor:
    """(A - mean A) * (logp - mean logp) of each token, means over the tokens of the mask; shape (B, N), no gradient."""
    real_BN = mask_BN > 0
    logprobs_BN = logprobs_BN.detach()
    return (advantages_BN - advantages_BN[real_BN].mean()) * (logprobs_BN - logprobs_BN[real_BN].mean())


def is_clipped(ratios_BN: torch.Tensor, advantages_BN: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Where PPO's clip already holds the gradient back: boolean, shape (B, N)."""
    return (advantages_BN * ratios_BN.clamp(1 - low, 1 + high)) < (advantages_BN * ratios_BN)


def sitting_out(
    logprobs_BN: torch.Tensor,
    advantages_BN: torch.Tensor,
    mask_BN: torch.Tensor,
    clipped_BN: torch.Tensor,
    settings: Covariance,
    generator: torch.Generator,
) -> torch.Tensor:
    """The tokens whose loss is 0: boolean, shape (B, N).

    Candidates are tokens that PPO does not clip and whose covariance lies between `low` and `high`; of these
    max(1, share * trained tokens) are drawn.
    """
    real_BN = mask_BN > 0
    chosen_BN = torch.zeros_like(real_BN)
    if not real_BN.any():
        return chosen_BN
    found_BN = covariances(logprobs_BN, advantages_BN, mask_BN)
    candidates_K = (real_BN & ~clipped_BN & (found_BN > settings.low) & (found_BN < settings.high)).flatten().nonzero().flatten()
    count = max(1, int(settings.share * int(real_BN.sum())))
    drawn_K = torch.randperm(len(candidates_K), generator=generator)[:count].to(candidates_K.device)
    chosen_BN.view(-1)[candidates_K[drawn_K]] = True
    return chosen_BN
