"""Self-imitation: train on one's own best trajectories (STaR, arXiv:2203.14465; ReST-EM, arXiv:2312.06585).

Of each tree, the trajectories whose return is at least `min_reward` and whose episode the environment ended: an episode that was cut
short or that broke is no example of how to finish. Of trajectories that did the same (the same completion ids, turn by turn) the first
is kept; of the rest the `best` by return, then by fewer turns, then in the order of the tree. Each segment of a kept trajectory is a
row.

Critics' verdicts can be added to the return, or stand in its place where the environment has none: best-of-n by a critic. A critic's
value of a trajectory is the least that it gave to one of its turns (as B-STaR adds a process reward, arXiv:2412.17256); a critic of whole
episodes gives one only, to the last. A trajectory of which a critic has no value, since it did not look or could not be read, is left out.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agentloop.dataset.row import Row
from agentloop.dataset.segment_row import segment_row
from agentloop.dataset.trajectory import OVERFLOW_REASONS
from agentloop.trace.segment import TRAINS
from agentloop.trace.tree import Tree, Turn, Verdict
from agentloop.trace.verdict import verdicts_by_turn


@dataclass(frozen=True, slots=True)
class Settings:
    """What the recipe's `build` stage may say of `dataset: self_imitation`.

    Attributes:
        min_reward: Least return of an episode, the verdicts' shares included.
        best: Most trajectories a tree (that is, a task of one `sample` stage); None keeps all.
        per_task: Most rows a task over all trees; None means no cap.
        deduplicate: Whether trajectories of a task that did the same count once.
        role: Only turns that this role played; None means every role, each with its own rows.
        seat: Only turns of this seat; None means every seat.
        train_after_overflow: Whether segments that began with a dropped window or a summary train too (their ids are what the model
            saw there).
        verdicts: By a critic's name the weight with which its value of a trajectory is added to the return.
    """

    min_reward: float = 1.0
    best: int | None = None
    per_task: int | None = None
    deduplicate: bool = True
    role: str | None = None
    seat: str | None = None
    train_after_overflow: bool = False
    verdicts: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Memory:
    """What is remembered between trees: it grows with tasks and kept trajectories, not with turns.

    Attributes:
        rows: Rows so far, by task.
        seen: Digests of what was done in the trajectories that were looked at.
    """

    rows: Counter[str] = field(default_factory=Counter)
    seen: set[bytes] = field(default_factory=set)


def build(trees: Iterable[Tree], settings: Settings = Settings(), *, stage: str = "", iteration: int = 0) -> Iterator[Row]:
    """Rows of the best trajectories, tree by tree, in the order of the trees; equal trees give equal rows. Trees must be whole."""
    memory = Memory()
    for tree in trees:
        yield from rows_of(tree, settings, memory, stage=stage, iteration=iteration)


def rows_of(tree: Tree, settings: Settings, memory: Memory, *, stage: str, iteration: int) -> Iterator[Row]:
    """Rows of the best trajectories of one tree, given what earlier trees have left in `memory`."""
    written: set[tuple[str, ...]] = set()  # paths of a search share segments; each is a row once
    for leaf, seat, reward in _best(tree, settings, memory.seen):
        for segment in tree.segments(leaf.id, seat=seat):
            turns = tuple(turn.id for turn in segment)
            if turns in written or not _trains(segment, settings):
                continue
            if settings.per_task is not None and memory.rows[tree.task] >= settings.per_task:
                break
            memory.rows[tree.task] += 1
            written.add(turns)
            yield segment_row(tree, segment, reward=reward, stage=stage, iteration=iteration, verdicts=tuple(settings.verdicts))


def _trains(segment: Sequence[Turn], settings: Settings) -> bool:
    reason = segment[0].fresh
    if reason is None or not TRAINS[reason] or (reason in OVERFLOW_REASONS and not settings.train_after_overflow):
        return False
    return any(turn.completion_ids and not turn.given for turn in segment)


def _best(tree: Tree, settings: Settings, seen: set[bytes]) -> list[tuple[Turn, str, float]]:
    """(leaf, seat, return) of what is to be trained on, best first where `best` limits it, else in the order of the tree. Verdicts have
    their share in the return.
    """
    judged = {critic: verdicts_by_turn(tree, critic) for critic in settings.verdicts}
    found: list[tuple[float, int, int, Turn, str]] = []
    for order, (leaf, seat) in enumerate(_finished(tree, settings)):
        said = _said(tree.path(leaf.id), settings.verdicts, judged)
        if said is None or (reward := tree.episode_return(leaf.id, seat=seat) + said) < settings.min_reward:
            continue
        turns = [turn for turn in tree.path(leaf.id) if turn.seat == seat]
        if settings.deduplicate:
            done = hashlib.sha256(repr((tree.task, seat, [turn.completion_ids for turn in turns])).encode()).digest()
            if done in seen:
                continue
            seen.add(done)
        found.append((-reward, len(turns), order, leaf, seat))
    if settings.best is not None:
        found = sorted(found, key=lambda entry: entry[:3])[: settings.best]
    return [(leaf, seat, -lost) for lost, _, _, leaf, seat in found]


def _said(path: Sequence[Turn], weights: Mapping[str, float], judged: Mapping[str, Mapping[str, Verdict]]) -> float | None:
    """What critics add to the return of a trajectory; None where one of them has no value of it."""
    total = 0.0
    for critic, weight in weights.items():
        values = [judged[critic][turn.id].value for turn in path if turn.id in judged[critic]]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        total += weight * min(known)
    return total


def _finished(tree: Tree, settings: Settings) -> Iterator[tuple[Turn, str]]:
    """Leaves where the environment ended the episode, once for each seat on the way that the settings ask for and that one role played
    alone: where another's rollout went on from the actor's turns, the row would be neither's.
    """
    for leaf in tree.leaves():
        if not leaf.done or leaf.truncated is not None:
            continue
        path = [turn for turn in tree.path(leaf.id) if not turn.given]
        wanted = [turn for turn in path if settings.role in (None, turn.role) and settings.seat in (None, turn.seat)]
        for seat in dict.fromkeys(turn.seat for turn in wanted):
            if len({turn.role for turn in path if turn.seat == seat}) == 1:
                yield leaf, seat
