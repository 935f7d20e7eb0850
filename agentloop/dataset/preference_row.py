"""Two continuations of one context, the first better than the second: what preference training (DPO, arXiv:2305.18290) takes.

Ids are exact on both sides: what the model saw and produced, a row each, with nothing tokenised in between. The two share `prompt_ids` to
the last id; the log-probability of a side is the sum over its masked ids in the context of the prompt and of all ids of the side before
them. Turns that both trajectories have in common lie in the prompt: they would cancel in the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from agentloop.dataset.row import Provenance


@dataclass(frozen=True, slots=True)
class Side:
    """One continuation.

    Attributes:
        ids: Completions, and the observations between them, up to the last completion's stop token; shape (T,).
        mask: 1 on the model's own tokens, stop tokens included, else 0; shape (T,). The first id is the model's own.
        value: What ordered the pair: the return, the mean return below the turn, or a critic's verdict.
        provenance: Where it came from; `context` names the turns in the prompt.
    """

    ids: tuple[int, ...]
    mask: tuple[int, ...]
    value: float
    provenance: Provenance

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.mask):
            raise ValueError(f"turns {self.provenance.turns}: {len(self.ids)} ids and a mask of {len(self.mask)}")


@dataclass(frozen=True, slots=True)
class PreferenceRow:
    """One pair to train on.

    Attributes:
        id: Stable name, a hash of content and provenance.
        prompt_ids: What precedes both sides; shape (P,).
        chosen: The better side.
        rejected: The worse side.
        role: Role whose adapter learns it.
        task: Id of the task.
        authored: Whether any trained id was written rather than sampled.
        adapter: Versioned name of the adapter that sampled the chosen side's first turn, or "base".
        temperature: Temperature it was sampled at.
        weight: Weight of the pair in the loss.
    """

    id: str
    prompt_ids: tuple[int, ...]
    chosen: Side
    rejected: Side
    role: str
    task: str
    authored: bool
    adapter: str
    temperature: float
    weight: float = 1.0

    @property
    def trained(self) -> int:
        """How many ids the loss sees, both sides together."""
        return sum(self.chosen.mask) + sum(self.rejected.mask)


class PreferenceSource(Protocol):
    """Anything that trainers can read pairs from."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[PreferenceRow]: ...
