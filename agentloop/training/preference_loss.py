"""Losses of preferences: a better and a worse continuation of one context, or single ones that are desirable or not.

A log-probability of a continuation is the sum over its trained ids. All functions are elementwise over a batch, shape (B,).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

LEAST_SURPRISE = 1e-6
"""Nats below zero at which a mean log-probability is held, so that the odds of what is certain stay finite."""


@dataclass(frozen=True, slots=True)
class Side:
    """The continuations of one kind in a batch; shapes (B,).

    Attributes:
        logprobs: Log-probabilities under the policy.
        lengths: Trained ids of each.
        reference: Log-probabilities under the reference; None where the form needs none.
    """

    logprobs: torch.Tensor
    lengths: torch.Tensor
    reference: torch.Tensor | None = None

    @property
    def log_ratio(self) -> torch.Tensor:
        """log pi - log pi_ref."""
        assert self.reference is not None
        return self.logprobs - self.reference.detach()

    @property
    def mean(self) -> torch.Tensor:
        """Mean log-probability of a trained id."""
        return self.logprobs / self.lengths.clamp(min=1)


def dpo_margin(chosen: Side, rejected: Side, beta: float) -> torch.Tensor:
    """By how much the implicit reward beta log(pi / pi_ref) of the chosen side is higher (DPO, arXiv:2305.18290, equation 7)."""
    return beta * (chosen.log_ratio - rejected.log_ratio)


def simpo_margin(chosen: Side, rejected: Side, beta: float) -> torch.Tensor:
    """By how much beta times the mean log-probability is higher (SimPO, arXiv:2405.14734, equation 4); needs no reference."""
    return beta * (chosen.mean - rejected.mean)


def odds_margin(chosen: Side, rejected: Side) -> torch.Tensor:
    """By how much the log odds of the mean probability are higher (ORPO, arXiv:2403.07691, equations 4 and 7); needs no reference."""
    return _log_odds(chosen.mean) - _log_odds(rejected.mean)


def _log_odds(logprobs: torch.Tensor) -> torch.Tensor:
    held = logprobs.clamp(max=-LEAST_SURPRISE)
    return held - torch.log(-torch.expm1(held))


def preferred(margin: torch.Tensor, target: float = 0.0) -> torch.Tensor:
    """-log sigmoid(margin - target): the Bradley-Terry likelihood of the preference, by `target` beyond even (SimPO's gamma)."""
    return -functional.logsigmoid(margin - target)


def kto_losses(log_ratios: torch.Tensor, desirable: torch.Tensor, beta: float, baseline: torch.Tensor) -> torch.Tensor:
    """1 - v of each single continuation (KTO, arXiv:2402.01306, equations 7 and 8), before the weights lambda.

    Args:
        log_ratios: log pi - log pi_ref.
        desirable: Whether it is an example to follow; boolean.
        beta: How fast gains and losses level off.
        baseline: The divergence z0 from the reference, at least 0; a number without gradient.
    """
    gain = beta * (log_ratios - baseline.detach())
    return 1 - torch.sigmoid(torch.where(desirable, gain, -gain))
