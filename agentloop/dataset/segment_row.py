"""From one segment of a tree to one row: ids as the model saw and produced them, and a mask on its own tokens.

The mask is 1 on every completion id, the first one and the stop token included, and 0 on every id that was fed. Nothing is tokenised and nothing is
added: a row's ids are the concatenation of what its turns stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from agentloop.dataset.row import Provenance, Row
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

    Behaviour log-probabilities are kept only where every turn was a plain draw of the policy; a segment with an authored turn is marked `authored`.
    `adapter` and `temperature` are those of the segment's first turn.

    Raises:
        ValueError: The segment is empty, or does not begin where a context was started afresh.
    """
    if not segment or segment[0].extends is not None:
        raise ValueError(f"tree {tree.id}: a segment begins with a turn that was started afresh, got {[turn.id for turn in segment]}")
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    for turn in segment:
        ids += turn.prompt_ids
        ids += turn.completion_ids
        mask += [0] * len(turn.prompt_ids) + [1] * len(turn.completion_ids)
        logprobs += [0.0] * len(turn.prompt_ids)
        logprobs += turn.logprobs if turn.logprobs is not None else [0.0] * len(turn.completion_ids)
    first = segment[0]
    provenance = Provenance(tree.id, tuple(turn.id for turn in segment), tuple(verdicts), stage, iteration)
    has_ratios = all(not turn.authored and turn.draw.has_ratio for turn in segment)
    return Row(
        id=row_id(ids, mask, weight, provenance),
        input_ids=tuple(ids),
        mask=tuple(mask),
        logprobs=tuple(logprobs) if has_ratios else None,
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
    """A stable name of 16 hex digits: a hash of what is trained on and where it came from (log-probabilities, which vary between machines, left out)."""
    where = [provenance.tree, list(provenance.turns), list(provenance.verdicts), provenance.stage, provenance.iteration]
    text = json.dumps([list(ids), list(mask), weight, where], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
