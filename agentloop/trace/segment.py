"""The training view of a segment: ids, mask and behaviour log-probabilities, exactly as the model saw and produced them.

A segment is the turns of one unbroken context (`Tree.segments`). The mask is 1 on what the model produced, stop token included, from its
very first id, and 0 on all that it was fed: prompts, observations, the end-of-turn token that closes a turn which a length limit had cut.
It is 0 too on turns that were taken over from another tree (`Turn.given`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from agentloop.trace.tree import FreshReason, Tree, Turn

TRAINS: Mapping[FreshReason, bool] = MappingProxyType(
    {"start": True, "seat": True, "template": True, "window": True, "summary": True, "critic": False, "authored": True}
)
"""Whether segments that were started afresh for a reason train the actor. All that it sampled does, since ids and log-probabilities are
those of the very context that the segment holds; a critic's turns train the critic's role only; authored ones only where no
log-probability is needed."""


class SegmentIds(NamedTuple):
    """One segment, flat.

    Attributes:
        ids: All ids in order; shape (T,).
        mask: 1 where the id is trained on; shape (T,).
        logprobs: Behaviour log-probabilities of completions, 0.0 elsewhere; shape (T,); None if a turn that trains is authored.
    """

    ids: tuple[int, ...]
    mask: tuple[int, ...]
    logprobs: tuple[float, ...] | None


def segment_ids(turns: Sequence[Turn], *, trained: Collection[str] | None = None) -> SegmentIds:
    """Ids, mask and log-probabilities of a segment.

    Args:
        turns: The segment, as `Tree.segment` or `Tree.segments` give it.
        trained: Ids of the turns to train on; None for all that were not taken over. The others stay in the context, with mask 0.

    Raises:
        ValueError: The turns are not one unbroken context.
    """
    ids: list[int] = []
    mask: list[int] = []
    logprobs: list[float] = []
    authored = False
    previous: str | None = None
    for turn in turns:
        if turn.extends != previous:
            raise ValueError(f"turn {turn.id!r} extends {turn.extends!r}; it cannot follow {previous!r} in a segment")
        trains = not turn.given if trained is None else turn.id in trained
        ids += [*turn.prompt_ids, *turn.completion_ids]
        mask += [0] * len(turn.prompt_ids) + [int(trains)] * len(turn.completion_ids)
        if trains and turn.logprobs is None:
            authored = True
        sampled = turn.logprobs if trains and turn.logprobs is not None else (0.0,) * len(turn.completion_ids)
        logprobs += [*(0.0,) * len(turn.prompt_ids), *sampled]
        previous = turn.id
    return SegmentIds(tuple(ids), tuple(mask), None if authored else tuple(logprobs))


def fresh_counts(tree: Tree) -> Counter[FreshReason]:
    """How many contexts of a tree were started afresh, by reason: "template" counts what the chat template could not be appended to."""
    return Counter(turn.fresh for turn in tree.turns if turn.fresh is not None)
