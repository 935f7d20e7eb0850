"""A trajectory as a person reads it: turn by turn, token by token, with what was trained on marked.

Reads only ids: the text of every piece is the decoding of exactly the ids that the model saw or produced, so what the colours show is the
mask and not a
reconstruction of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agentloop.trace.tree import Tree, Turn

Decode = Callable[[Sequence[int]], str]
"""Ids to text, special tokens written out."""

Kind = Literal["prompt", "sampled", "trained"]
"""Fed to the model; produced by it but not trained on; produced by it and trained on."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A token, or the few tokens that make one character together.

    Attributes:
        text: Its text, special tokens written out.
        kind: How it is coloured.
        title: What a pointer over it shows: ids and log-probability.
    """

    text: str
    kind: Kind
    title: str = ""


@dataclass(frozen=True, slots=True)
class TurnView:
    """One turn: what was fed before it, and what the model produced."""

    turn: str
    seat: str
    prompt: tuple[Piece, ...]
    completion: tuple[Piece, ...]
    reward: float
    note: str


@dataclass(frozen=True, slots=True)
class Example:
    """One trajectory to show."""

    tree: str
    task: str
    leaf: str
    adapter: str
    outcome: str
    total: float
    trained: bool
    turns: tuple[TurnView, ...]
    last_observation: str


def examples(trees: Iterable[Tree], trained: set[tuple[str, str]], decode: Decode, *, successes: int = 3, others: int = 3) -> list[Example]:
    """The first few successful and other trajectories of `trees`, those that became training rows first among the successful."""
    wins: list[Example] = []
    losses: list[Example] = []
    for tree in trees:
        for leaf in tree.leaves():
            is_trained = any((tree.id, turn.id) in trained for turn in tree.path(leaf.id))
            full = len(losses) >= others if not leaf.success else len(wins) >= successes and not is_trained
            if full:
                continue
            (wins if leaf.success else losses).append(_example(tree, leaf, trained, decode))
        if len(losses) >= others and sum(example.trained or not trained for example in wins) >= successes:
            break
    wins.sort(key=lambda example: not example.trained)
    return wins[:successes] + losses[:others]


def _example(tree: Tree, leaf: Turn, trained: set[tuple[str, str]], decode: Decode) -> Example:
    path = tree.path(leaf.id)
    outcome = "success" if leaf.success else f"cut: {leaf.truncated}" if leaf.truncated else "no success"
    return Example(
        tree=tree.id,
        task=tree.task,
        leaf=leaf.id,
        adapter=leaf.draw.adapter,
        outcome=outcome,
        total=tree.episode_return(leaf.id),
        trained=any((tree.id, turn.id) in trained for turn in path),
        turns=tuple(_view(turn, (tree.id, turn.id) in trained, decode) for turn in path),
        last_observation=leaf.observation or "",
    )


def _view(turn: Turn, trained: bool, decode: Decode) -> TurnView:
    notes = ["taken over from an earlier tree"] if turn.given else []
    if turn.fresh not in (None, "start"):
        notes.append(f"context started afresh: {turn.fresh}")
    if turn.finish == "length":
        notes.append("cut by the token limit")
    if turn.draw.kind != "policy":
        notes.append(f"drawn: {turn.draw.kind}")
    return TurnView(
        turn=turn.id,
        seat=turn.seat,
        prompt=tuple(pieces(turn.prompt_ids, None, "prompt", decode)),
        completion=tuple(pieces(turn.completion_ids, turn.logprobs, "trained" if trained else "sampled", decode)),
        reward=turn.reward,
        note="; ".join(notes),
    )


def pieces(ids: Sequence[int], logprobs: Sequence[float] | None, kind: Kind, decode: Decode) -> Iterator[Piece]:
    """Split ids into the smallest groups whose decoding is whole characters. A prompt is one piece, since nobody asks for its tokens."""
    if kind == "prompt":
        if ids:
            yield Piece(decode(ids), kind)
        return
    start = 0
    for end in range(1, len(ids) + 1):
        text = decode(ids[start:end])
        if "\ufffd" in text and end < len(ids):
            continue
        title = "ids " + " ".join(str(i) for i in ids[start:end])
        if logprobs is not None:
            title += "  log-probability " + " ".join(f"{value:.3f}" for value in logprobs[start:end])
        yield Piece(text, kind, title)
        start = end
