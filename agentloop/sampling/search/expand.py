"""One expansion: the children of a node, tried in the environment, those that did the same made one.

Two candidates are one if they said the same action, or did the same: the environment answered alike (observation, reward, end) and,
where it gives snapshots, was left in an equal state. The first is kept; it tells how many draws it stands for (`Draw.copies`), and
what the others cost (`Turn.spent`).

An expansion changes nothing: what it found is handed back, and is added to the tree in an order that does not depend on who came first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agentloop.sampling.draw import turn_of
from agentloop.sampling.failure import Broken
from agentloop.sampling.search.arena import Arena, Stepped, gather
from agentloop.sampling.search.candidate import Stem, admissible, sampled
from agentloop.sampling.search.growth import ROOT, Growth
from agentloop.sampling.search.settings import Expansion
from agentloop.sampling.seed import request_seed
from agentloop.trace.render import ContextFull
from agentloop.trace.tree import DrawKind, Failure, Spent, Truncation, Turn, Verdict


@dataclass(frozen=True, slots=True)
class Reached:
    """A child that was reached.

    Attributes:
        turn: Id of its turn.
        ended: Whether the path ends there.
        value: What the path is worth if it ends there: its return, 0 after a disaster.
    """

    turn: str
    ended: bool
    value: float


@dataclass
class Found:
    """What an expansion found.

    Attributes:
        node: The node that was expanded.
        turns: New turns in order: a summary, then the children and what broke.
        children: The children that were reached.
        failures: What broke.
        verdicts: What a critic said of them.
        closed: Why nothing follows the node, which then has no children.
        duplicates: How many of them did what another one did.
        generated: Tokens that were generated.
        stateless: Candidates whose state nothing will ask for: duplicates and ends.
        states: Snapshots of the children that go on, where revisits are looked for.
    """

    node: str
    turns: list[Turn] = field(default_factory=list)
    children: list[Reached] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    closed: Truncation | None = None
    duplicates: int = 0
    generated: int = 0
    stateless: tuple[str, ...] = ()
    states: dict[str, Any] = field(default_factory=dict)


@dataclass
class Tried:
    """A candidate with its action, and what that led to."""

    turn: Turn
    stepped: Stepped | Broken


async def expand(arena: Arena, growth: Growth, node: str, *, settings: Expansion, kind: DrawKind, simulation: int) -> Found:
    """Find the children of a node.

    Args:
        arena: Where it is done.
        growth: The tree; only read.
        node: The node.
        settings: How.
        kind: How a candidate was drawn if it is not de-duplicated and not an admissible action.
        simulation: Number of the simulation, which failures name.

    Raises:
        ContextFull: Not even the first observation fits.
        RunFailed: Admissible actions are asked for and the environment lists none.
    """
    found = Found(node)
    stem = await stem_of(arena, growth, found, simulation)
    if stem is None:
        return found
    if settings.draw == "admissible":
        drawn = await admissible(arena, growth, stem, width=settings.width)
        if not drawn:
            found.closed = "environment"
            return found
    else:
        drawn = await sampled(arena, growth, stem, width=settings.width, kind=kind if settings.deduplicate == "none" else "deduplicated")
        found.generated += sum(len(one.completion_ids) for one in drawn if isinstance(one, Turn))
    found.failures += [one.failure(simulation, stem.parent) for one in drawn if isinstance(one, Broken)]
    turns = [one for one in drawn if isinstance(one, Turn)]
    context = len(stem.context)
    if settings.deduplicate != "none":
        turns = merge_equal_actions(turns, context)
    stepped = await gather(arena.step(growth, node, turn.text, turn.id) for turn in turns)
    tried = [Tried(replace(turn, action=turn.text), one) for turn, one in zip(turns, stepped, strict=True)]
    if settings.deduplicate == "effect":
        tried = _merge_equal_effects(tried, context)
    found.duplicates = sum(one.turn.draw.copies - 1 for one in tried)
    last = growth.depth(node) + 1 >= arena.seat.settings.max_turns
    before = [growth.states.get(name) for name in (ROOT, *(turn.id for turn in growth.path(node)))] if settings.revisits == "end" else []
    for one in tried:
        record(found, one, settings, last=last, before=before, simulation=simulation)
    goes_on = {child.turn for child in found.children if not child.ended}
    if settings.revisits == "end":
        states = {one.turn.id: one.stepped.state for one in tried if isinstance(one.stepped, Stepped)}
        found.states = {turn: state for turn, state in states.items() if turn in goes_on}
    found.stateless = tuple(turn.id for turn in turns if turn.id not in goes_on)
    return found


def add(arena: Arena, growth: Growth, found: Found) -> None:
    """Add to the tree what an expansion found, and count it.

    Raises:
        RunFailed: Too many candidates of the stage broke.
    """
    growth.add(found.turns, found.verdicts, [arena.log.add(failure) for failure in found.failures])
    growth.generated += found.generated
    growth.states |= found.states
    for turn in found.stateless:
        growth.snapshots.forget(turn)
    if found.closed is not None and growth.turns:
        growth.cut(found.turns[-1].id if found.turns else found.node, found.closed)
    arena.counts.expansions += 1
    arena.counts.duplicates += found.duplicates
    arena.log.check(arena.counts.candidates)


async def stem_of(arena: Arena, growth: Growth, found: Found, simulation: int) -> Stem | None:
    """The prompt at the node, after a summary if one is due. None, and `found` says why, where nothing can follow."""
    node = found.node
    conversation, observation = growth.conversation(arena.seat, node)
    try:
        prompt = conversation.observe(observation)
        if prompt.asks_summary:
            drawn = await arena.draw(conversation.context_ids, request_seed(growth.node_seed(node, "summary"), 0))
            arena.counts.candidates += 1
            if isinstance(drawn, Broken):
                found.failures.append(drawn.failure(simulation, node or None))
                return None
            summary = turn_of(arena.seat, prompt, drawn, id=f"{node}.s", parent=node)
            found.turns.append(summary)
            found.generated += len(summary.completion_ids)
            conversation.add(summary)
            prompt = conversation.observe(observation)
    except ContextFull:
        if not node:
            raise
        found.closed = "context"
        return None
    return Stem(node, found.turns[-1].id if found.turns else node or None, prompt, conversation.context_ids)


def merge_equal_actions(turns: Sequence[Turn], context: int) -> list[Turn]:
    """One of each action; `context` is the length of their common prompt."""
    kept: dict[str, Turn] = {}
    for turn in turns:
        same = kept.get(turn.text)
        kept[turn.text] = turn if same is None else _merged(same, turn, context)
    return list(kept.values())


def _merge_equal_effects(tried: Sequence[Tried], context: int) -> list[Tried]:
    kept: list[Tried] = []
    for one in tried:
        same = next((other for other in kept if _did_the_same(other.stepped, one.stepped)), None)
        if same is None:
            kept.append(one)
        else:
            same.turn = _merged(same.turn, one.turn, context)
    return kept


def _did_the_same(one: Stepped | Broken, other: Stepped | Broken) -> bool:
    if isinstance(one, Broken) or isinstance(other, Broken):
        return False
    first, second = one.result, other.result
    return (first.observation, first.reward, first.done, first.truncated) == (
        second.observation,
        second.reward,
        second.done,
        second.truncated,
    ) and _equal(one.state, other.state)


def _equal(one: object, other: object) -> bool:
    """Whether two snapshots are equal; no where they cannot tell (arrays, for example, compare element by element)."""
    try:
        return bool(one == other)
    except Exception:
        return False


def _merged(kept: Turn, other: Turn, context: int) -> Turn:
    """`kept`, standing for `other` too."""
    copy = Spent(1, context, other.cached_tokens, len(other.completion_ids))
    if other.draw.kind == "admissible":
        copy = Spent(1, context + len(other.completion_ids))
    return replace(kept, draw=replace(kept.draw, copies=kept.draw.copies + other.draw.copies), spent=kept.spent + other.spent + copy)


def record(found: Found, tried: Tried, settings: Expansion, *, last: bool, before: Sequence[Any] = (), simulation: int) -> None:
    """Add what a candidate did: its turn, and the child or the failure.

    Args:
        found: What it is added to.
        tried: The candidate.
        settings: What ends a path.
        last: Whether it was the last turn that a path may have.
        before: Snapshots of the states on the way to it.
        simulation: Number of the simulation, which a failure names.
    """
    turn, stepped = tried.turn, tried.stepped
    if isinstance(stepped, Broken):
        found.turns.append(turn)
        found.failures.append(stepped.failure(simulation, turn.id))
        return
    result = stepped.result
    truncated: Truncation | None = None
    if not result.done:
        disaster = settings.disasters and result.reward < 0
        loop = any(state is not None and _equal(state, stepped.state) for state in before)
        truncated = "environment" if result.truncated else "disaster" if disaster else "loop" if loop else "turns" if last else None
    found.turns.append(
        replace(
            turn,
            observation=result.observation,
            reward=result.reward,
            done=result.done,
            success=False if truncated else stepped.success,
            truncated=truncated,
            info=result.info,
            seconds=(turn.seconds[0], stepped.seconds),
        )
    )
    value = 0.0 if settings.disasters and result.reward < 0 else stepped.total
    found.children.append(Reached(turn.id, result.done or truncated is not None, value))
