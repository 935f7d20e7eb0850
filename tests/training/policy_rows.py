"""Rows with advantages and behaviour log-probabilities, for tests of policy gradients, and their loss by its definition."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from agentloop.dataset.row import Row
from tests.training.random_rows import random_rows


def policy_rows(count: int, *, seed: int = 0, **changes: Any) -> list[Row]:
    """Random rows; log-probabilities are those of a nearly uniform model of 96 ids, give or take."""
    generator = random.Random(f"policy/{seed}")
    rows = []
    for row in random_rows(count, seed=seed):
        logprobs = tuple(-4.56 + generator.uniform(-0.5, 0.5) if m else 0.0 for m in row.mask)
        advantages = tuple(generator.uniform(-2, 2) if m else 0.0 for m in row.mask)
        rows.append(replace(row, logprobs=logprobs, advantages=advantages, **changes))
    return rows


def plain_loss(tokens: list[list[dict[str, Any]]], **options: Any) -> Any:
    """The loss of a batch, token by token, from the formulas of the papers; a scalar tensor.

    Args:
        tokens: For each row, for each trained id: "now" (a scalar tensor with a gradient), "old", "start" and "advantage" (numbers).
        options: As `PolicySettings`.
    """
    import torch

    low, high, kl = options.get("clip_low", 0.2), options.get("clip_high", 0.2), options.get("kl", 0.0)
    correction, kind = options.get("correction"), options.get("loss", "clip")
    sums, counts = [], []
    for row in tokens:
        losses = []
        for token in row:
            now, old, advantage = token["now"], token["old"], token["advantage"]
            if kind == "reinforce":
                ratio = torch.exp(now - now.detach())  # the value 1, the gradient of log p
                loss = -ratio * advantage
            else:
                weight = 1.0
                if correction is not None:
                    weight = min(correction, float(torch.exp(torch.tensor(token["start"] - old))))
                    old = token["start"]
                ratio = torch.exp(now - old)
                loss = -weight * torch.minimum(ratio * advantage, torch.clamp(ratio, 1 - low, 1 + high) * advantage)
            if kl:
                loss = loss + kl * ratio * (torch.exp(token["start"] - now) - (token["start"] - now) - 1)
            losses.append(loss)
        sums.append(torch.stack(losses).sum())
        counts.append(len(losses))
    aggregate = options.get("aggregate", "token")
    if aggregate == "token":
        return torch.stack(sums).sum() / sum(counts)
    if aggregate == "sequence":
        return torch.stack([total / count for total, count in zip(sums, counts, strict=True)]).mean()
    return torch.stack([total / options["length"] for total in sums]).mean()
