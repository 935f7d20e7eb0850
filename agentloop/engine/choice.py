"""A completion that must be one of a few texts, for the transformers engine; vLLM does the same by itself.

Each choice is one sequence of ids, as the tokenizer writes its text. At every position only ids that continue a choice are left, and the
stop tokens once a choice is complete.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Choices:
    """The ids that may come next.

    Args:
        choices: Ids of each choice, without a stop token.
        stop_token_ids: Ids that may follow a complete choice.
    """

    def __init__(self, choices: Sequence[tuple[int, ...]], stop_token_ids: Sequence[int]) -> None:
        self._choices = tuple(choices)
        self._stops = frozenset(stop_token_ids)

    def allowed(self, produced: Sequence[int]) -> frozenset[int]:
        """Ids that may follow what was produced; never empty as long as only allowed ids were and none of them was a stop token."""
        so_far, length = tuple(produced), len(produced)
        going_on = [choice for choice in self._choices if choice[:length] == so_far]
        following = frozenset(choice[length] for choice in going_on if len(choice) > length)
        return following | self._stops if so_far in going_on else following

    def constrain(self, logits_V: torch.Tensor, produced: Sequence[int]) -> torch.Tensor:
        """The logits with those of every other id at minus infinity; shape (V,)."""
        allowed_A = torch.tensor(sorted(self.allowed(produced)), device=logits_V.device)
        constrained_V = torch.full_like(logits_V, -torch.inf)
        constrained_V[allowed_A] = logits_V[allowed_A]
        return constrained_V
