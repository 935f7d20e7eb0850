"""What a policy-gradient training is asked beyond what every training is: `TrainingJob.options` of method "grpo", checked.

Importing this module imports no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from agentloop.errors import Mistake, nearest

T = TypeVar("T")

Aggregate = Literal["token", "sequence", "constant"]
Loss = Literal["clip", "clip_cov", "reinforce"]


@dataclass(frozen=True, slots=True)
class Covariance:
    """Which tokens clip-cov takes out of the loss (arXiv:2505.22617): of those whose covariance lies between, a few at random.

    Attributes:
        share: How many, as a share of the trained tokens; at least one.
        low: Least covariance of advantage and log-probability, exclusive.
        high: Greatest, exclusive.
    """

    share: float = 0.02
    low: float = 1.0
    high: float = 40.0


@dataclass(frozen=True, slots=True)
class Replay:
    """Rows of earlier iterations that are trained on once more after the others (SPEAR, arXiv:2509.22601).

    Attributes:
        rows: Artifacts of the rows in the store.
        group_means: Mean returns of the groups of each earlier iteration, the oldest first.
        weight: gamma: what the loss of replayed rows is multiplied by.
        size: B: most rows that are replayed at once.
        least: Nothing is replayed unless more than `least` times `size` rows in the store are above the baseline.
        quantile: Which quantile of the group means the baseline is.
        memory: D_R: most group means that are remembered; whole iterations are forgotten, the oldest first.
        recalibrate: Whether a row's advantage is its return less the baseline, and negative ones are dropped; otherwise it keeps its own.
        covariance: Clip-cov of replayed rows.
    """

    rows: tuple[str, ...] = ()
    group_means: tuple[tuple[float, ...], ...] = ()
    weight: float = 1.0
    size: int = 2048
    least: float = 1.5
    quantile: float = 0.5
    memory: int = 10240
    recalibrate: bool = True
    covariance: Covariance = Covariance()


@dataclass(frozen=True, slots=True)
class PolicySettings:
    """The options of method "grpo".

    Attributes:
        loss: `clip` is PPO's clipped ratio, `clip_cov` also takes tokens of high covariance out, `reinforce` has no ratio.
        clip_low: How far a ratio may fall below 1 where the advantage is negative.
        clip_high: How far it may rise above 1 where it is positive.
        kl: Weight of the divergence from the adapter's start (the estimator k3).
        aggregate: How token losses become one number: the mean over the batch's trained tokens; the mean over rows of their means; the mean
            over rows of their sums divided by `length` (Dr. GRPO, arXiv:2503.20783).
        length: Constant that `aggregate: constant` divides by, in ids; None is the most trained ids of any row.
        correction: Cap of the weight that makes up for rows that another version (or another implementation) sampled: ratios are then
            against the training's start, and each token weighs min(correction, start / behaviour). None takes ratios against the behaviour.
        covariance: Clip-cov of new rows.
        max_staleness: Iterations by which the adapter that sampled a row may be older than the one that is trained; older rows are left out
            and counted. None is no limit.
        version: Versioned name of the adapter that the training goes on from, or "base": what `max_staleness` counts from.
        replay: Rows of earlier iterations; None replays nothing.
    """

    loss: Loss = "clip"
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: float = 0.0
    aggregate: Aggregate = "token"
    length: int | None = None
    correction: float | None = None
    covariance: Covariance = field(default_factory=Covariance)
    max_staleness: int | None = None
    version: str = "base"
    replay: Replay | None = None

    @staticmethod
    def of(options: Mapping[str, Any]) -> PolicySettings:
        """The settings of a job's options. Raises `Mistake` for an option that there is not, or a value that cannot be."""
        values = dict(options)
        if (replay := values.get("replay")) is not None:
            replay = dict(replay)
            if "covariance" in replay:
                replay["covariance"] = _made(Covariance, replay["covariance"])
            replay["rows"] = tuple(replay.get("rows", ()))
            replay["group_means"] = tuple(map(tuple, replay.get("group_means", ())))
            values["replay"] = _made(Replay, replay)
        if "covariance" in values:
            values["covariance"] = _made(Covariance, values["covariance"])
        found = _made(PolicySettings, values)
        if found.loss not in ("clip", "clip_cov", "reinforce") or found.aggregate not in ("token", "sequence", "constant"):
            raise Mistake("unknown loss or aggregate of a policy training", found=f"{found.loss}, {found.aggregate}")
        if found.loss == "reinforce" and found.correction is not None:
            raise Mistake("loss 'reinforce' has no ratio to correct", found=f"correction {found.correction}", expected="no correction")
        return found


def _made(kind: type[T], values: Mapping[str, Any]) -> T:
    known = [entry.name for entry in dataclasses.fields(kind)]  # type: ignore[arg-type]  # T is one of the dataclasses above
    for name in values:
        if name not in known:
            raise Mistake(f"unknown option {name!r} of a policy training", nearest=nearest(name, known))
    return kind(**values)
