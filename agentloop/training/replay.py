"""Self-imitation replay: which stored rows are trained on once more, and what their advantage is now (SPEAR, arXiv:2509.22601).

The steps of an iteration, after the new rows were trained on, and before they are stored:

1. The baseline is a quantile, the median, of the mean returns of the groups of earlier iterations.
2. Nothing happens unless more than 1.5 B stored rows have a return above it.
3. A row's advantage is its return (as it was stored, with the tool reward of its time) less the baseline; negative ones are dropped.
4. Of n rows that are left, min(2 ** floor(log2 n), B) are drawn at random and trained on once, their loss times gamma.
5. The store is emptied (`agentloop.loop.stores` reads from the journal that a replay took place).

Only rows with a positive mean advantage are stored. As the policy improves the median rises, and old rows that were wins then drop out.

What differs from the authors' code: a stored entry is a segment, which in an environment with an appendable context is a whole trajectory;
theirs are single steps.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from agentloop.dataset.row import Row
from agentloop.training.policy_settings import Replay


def storable(row: Row) -> bool:
    """Whether a row may be replayed: its mean advantage over trained ids was positive when it was new."""
    return sum(row.advantages or ()) > 0


def remembered(group_means: Sequence[Sequence[float]], most: int) -> list[float]:
    """The group means that count, of the latest iterations.

    As in the authors' code an iteration is added when the others have been cut down to `most`, so that up to one iteration more is kept.

    Args:
        group_means: Means of each iteration, the oldest first.
        most: D_R.
    """
    kept: list[Sequence[float]] = []
    for means in group_means:
        while kept and sum(map(len, kept)) > most:
            kept.pop(0)
        kept.append(means)
    return [mean for means in kept for mean in means]


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile of one or more values, interpolated between the two nearest, as numpy's default."""
    ranked = sorted(values)
    at = share * (len(ranked) - 1)
    low = int(at)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (at - low) * (ranked[high] - ranked[low])


def replay_count(available: int, most: int) -> int:
    """min(2 ** floor(log2 n), B): the greatest power of two that is there, at most `most`; 0 of fewer than two."""
    return min(1 << (available.bit_length() - 1), most) if available > 1 else 0


def chosen(stored: Sequence[Row], settings: Replay, *, seed: str) -> tuple[list[Row], float | None]:
    """The rows to replay, in the order of their ids, and the baseline of their advantages; none, and None, where nothing is replayed.

    Without `recalibrate` all stored rows are candidates, keep their advantages, and the baseline is None.
    """
    candidates = [row for row in stored if storable(row)]
    baseline = _baseline(candidates, settings)
    above = [row for row in candidates if row.reward > baseline] if settings.recalibrate else candidates
    if len(above) <= settings.least * settings.size:
        return [], None
    fit = [row for row in candidates if row.reward - baseline >= 0] if settings.recalibrate else candidates
    drawn = random.Random(seed).sample(fit, replay_count(len(fit), settings.size))
    return sorted(drawn, key=lambda row: row.id), baseline if settings.recalibrate else None


def _baseline(candidates: Sequence[Row], settings: Replay) -> float:
    """The quantile of the remembered means; of the stored rows' returns where no means are known."""
    means = remembered(settings.group_means, settings.memory) or [row.reward for row in candidates]
    return quantile(means, settings.quantile) if means else 0.0
