"""From one segment of a tree to one row: ids as the model saw and produced them, and a mask on its own tokens.

Ids and mask are those of `agentloop.trace.segment`: 1 on every completion id, the first one and the stop token included, and 0 on every
id that was fed and on turns that were taken over from another tree. Nothing is tokenised and nothing is added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Sequence

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
    trained: Collection[str] | None = None,
    context: Sequence[str] = (),
) -> Row:
    """The row of one segment (turns of one unbroken context, in order, the first started afresh).

    Behaviour log-probabilities are kept only where every turn that trains was a plain draw of the policy; a row that trains on an authored
    turn is marked `authored`. `adapter` and `temperature` are those of the first turn that trains.

    Args:
        tree: The tree; turns of the segment that are not in it were written by an author.
        trained: Ids of the turns to train on; None for all that were not taken over from another tree.
        context: Turns that shaped the row before this segment, for its provenance.

    Raises:
        ValueError: The turns are not one unbroken context, begun afresh, or none of them trains.
    """
    chosen = [turn for turn in segment if (not turn.given if trained is None else turn.id in trained)]
    if not chosen:
        raise ValueError(f"tree {tree.id}: a segment without a turn to train on is no row")
    wanted = {turn.id for turn in chosen}
    ids, mask, logprobs = segment_ids(segment, trained=wanted)
    others = dict.fromkeys([*context, *(turn.id for turn in segment if turn.id in tree and turn.id not in wanted)])
    provenance = Provenance(
        tree.id,
        turns=tuple(turn.id for turn in chosen if turn.id in tree),
        verdicts=tuple(verdicts),
        stage=stage,
        iteration=iteration,
        context=tuple(others),
    )
    first = chosen[0]
    has_ratios = all(not turn.authored and turn.draw.has_ratio for turn in chosen)
    return Row(
        id=row_id(ids, mask, weight, provenance),
        input_ids=ids,
        mask=mask,
        logprobs=logprobs if has_ratios else None,
        role=first.role,
        task=tree.task,
        reward=reward,
        authored=any(turn.authored for turn in chosen),
        adapter=first.draw.adapter,
        temperature=first.draw.temperature,
        provenance=provenance,
        weight=weight,
    )


def row_id(ids: Sequence[int], mask: Sequence[int], weight: float, provenance: Provenance) -> str:
    """A stable name of 16 hex digits: a hash of what is trained on and where it came from (log-probabilities, which vary between
    machines, left out).
    """
    return name_of([list(ids), list(mask), weight], provenance)


def name_of(content: Sequence[object], *provenances: Provenance) -> str:
    """A stable name of 16 hex digits of JSON values and where they came from."""
    where = [
        [one.tree, list(one.turns), list(one.verdicts), one.stage, one.iteration, *([list(one.context)] if one.context else [])]
        for one in provenances
    ]
    text = json.dumps([*content, *where], separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
