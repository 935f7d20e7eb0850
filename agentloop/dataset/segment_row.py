"""From one segment of a tree to one row: ids as the model saw and produced them, and a mask on its own tokens.

Ids and mask are those of `agentloop.trace.segment`: 1 on every completion id, the first one and the stop token included, and 0 on every
id that was fed. Nothing is tokenised and nothing is added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from agentloop.dataset.row import Provenance, Row
from agentloop.trace.segment import segment_ids
from agentloop.trace.tree import Tree, Turn


def segment_row(
    tree: Tree,
    segment: Sequence[Turn],
    *,
    reward: float,
    stage: str,
    iteration: int,
    verdicts: Sequence[str] = (),
    weight: float = 1.0,
) -> Row:
    """The row of one segment (turns of one unbroken context, in order, the first started afresh).

    Behaviour log-probabilities are kept only where every turn was a plain draw of the policy; a segment with an authored turn is marked
    `authored`.
    `adapter` and `temperature` are those of the segment's first turn.

    Raises:
        ValueError: The turns are not one unbroken context, begun afresh.
    """
    ids, mask, logprobs = segment_ids(segment)
    if not ids:
        raise ValueError(f"tree {tree.id}: an empty segment is no row")
    first = segment[0]
    provenance = Provenance(tree.id, tuple(turn.id for turn in segment), tuple(verdicts), stage, iteration)
    has_ratios = all(not turn.authored and turn.draw.has_ratio for turn in segment)
    return Row(
        id=row_id(ids, mask, weight, provenance),
        input_ids=ids,
        mask=mask,
        logprobs=logprobs if has_ratios else None,
        role=first.role,
        task=tree.task,
        reward=reward,
        authored=any(turn.authored for turn in segment),
        adapter=first.draw.adapter,
        temperature=first.draw.temperature,
        provenance=provenance,
        weight=weight,
    )


def row_id(ids: Sequence[int], mask: Sequence[int], weight: float, provenance: Provenance) -> str:
    """A stable name of 16 hex digits: a hash of what is trained on and where it came from (log-probabilities, which vary between
    machines, left out).
    """
    where = [provenance.tree, list(provenance.turns), list(provenance.verdicts), provenance.stage, provenance.iteration]
    text = json.dumps([list(ids), list(mask), weight, where], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
