"""The loss of weighted tokens: imitation where the weight is above zero, unlearning where it is below.

For a token with log-probability l, log-probability r under the adapter that the training began with, and weight w::

    w > 0    w * -l                           negative log-likelihood (reward-weighted regression, as RISE, arXiv:2407.18219)
    w < 0    |w| * -log sigmoid(-(l - r))     bounded unlikelihood (the released code of SEAgent, arXiv:2508.04700)
    w = 0    0

The second one cannot run away: its gradient in l is |w| sigmoid(l - r), half of |w| at the beginning and nothing once the token has become
much less likely than it was, where plain unlikelihood would go on for ever. It has no temperature inside the sigmoid.
"""

from __future__ import annotations

import torch
from torch.nn import functional


def token_losses(logprobs: torch.Tensor, weights: torch.Tensor, reference: torch.Tensor | None = None) -> torch.Tensor:
    """Loss of each token, in weighted nats; all shapes are equal.

    Args:
        logprobs: Log-probabilities under the policy.
        weights: Weights; 0 where nothing is trained.
        reference: Log-probabilities under the adapter that the training began with; needed where a weight is below zero.

    Raises:
        ValueError: A weight is below zero and there is no reference.
    """
    imitated = -logprobs * weights.clamp(min=0)
    if reference is None:
        if bool((weights < 0).any()):
            raise ValueError("tokens with a weight below zero need reference log-probabilities")
        return imitated
    return imitated + functional.softplus(logprobs - reference.detach()) * (-weights).clamp(min=0)
