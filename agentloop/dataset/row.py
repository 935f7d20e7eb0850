"""Training rows: what builders make of trees and trainers take, without any tokenising in between."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a row came from: enough to find the tree, the turns, the verdicts and the stage again.

    Attributes:
        tree: Id of the tree.
        turns: Ids of the turns that the row trains on, in order. What an author wrote is no turn of the tree and is not among them.
        context: Ids of the other turns that it was made of, which it holds (or whose context it holds) with mask 0, in order: the bad path
            of a splice, turns that were taken over from another tree.
        verdicts: Names of the critics whose verdicts selected or shaped the row.
        stage: Id of the build stage.
        iteration: Iteration in which the row was built.
    """

    tree: str
    turns: tuple[str, ...]
    verdicts: tuple[str, ...] = ()
    stage: str = ""
    iteration: int = 0
    context: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One segment to train on.

    Attributes:
        id: Stable name, a hash of content and provenance.
        input_ids: Ids exactly as the model saw and produced them; shape (T,).
        mask: 1 where the id is trained on (the model's own tokens, stop token included), else 0; shape (T,).
        logprobs: Behaviour log-probabilities at masked positions, 0.0 elsewhere; shape (T,); None for authored rows.
        weight: Factor of the row's loss in imitation; below zero, the row is unlearnt.
        advantages: Advantage of each masked id for policy gradients, 0.0 elsewhere; shape (T,); None where the builder made none.
        token_weights: Factor of each masked id's loss beside the row's; shape (T,); None where all are 1.
        role: Role whose adapter learns it.
        task: Id of the task, so that rows of a task can be grouped and capped.
        reward: Return of the episode.
        authored: Whether any trained id was written rather than sampled.
        adapter: Versioned name of the adapter that sampled it, or "base".
        temperature: Temperature it was sampled at.
        provenance: Where it came from.
    """

    id: str
    input_ids: tuple[int, ...]
    mask: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    role: str
    task: str
    reward: float
    authored: bool
    adapter: str
    temperature: float
    provenance: Provenance
    weight: float = 1.0
    advantages: tuple[float, ...] | None = None
    token_weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        fields = (self.input_ids, self.mask, self.logprobs, self.advantages, self.token_weights)
        lengths = {len(values) for values in fields if values is not None}
        if len(lengths) != 1:
            raise ValueError(f"row {self.id}: ids, mask, log-probabilities, advantages and weights differ in length: {sorted(lengths)}")

    @property
    def trained(self) -> int:
        """How many ids the loss sees."""
        return sum(self.mask)


class RowSource(Protocol):
    """Anything that trainers can read rows from: a Parquet artifact, a mix of several, a list in a test."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Row]: ...
