"""Where episodes start that go on from earlier trees: which nodes, what is said there first, and the way to them.

A node can be gone on from if the environment answered its action and did not end the episode with it. Of an episode that the environment
ended, the last such node is therefore the turn before the last one: the agent stands where it made its last move.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agentloop.sampling.reach import retrace
from agentloop.trace.conversation import ContextFull, Conversation
from agentloop.trace.episode import ended
from agentloop.trace.render import Renderer
from agentloop.trace.thoughts import THOUGHTS, choose
from agentloop.trace.tree import Tree, Turn
from agentloop.trace.verdict import first_error, is_walked

At = Literal["end", "failure", "error", "turn", "random"]

QUESTION = "Something went wrong. Do not act now: say in one or two sentences what the mistake was and what you will do instead."


@dataclass(frozen=True, slots=True)
class Thought:
    """A revision thought, said at the node before the episode goes on (Agent-R, arXiv:2501.11425).

    Attributes:
        by: "list" forces one of `texts`, chosen by the seed; "actor" asks the model, whose answer is a turn that trains like any other.
        texts: The list.
        question: What the actor is asked; it stands behind the node's observation.
        answer: What the model is shown after its thought. None gives the thought to the environment as an action, and shows its answer.
    """

    by: Literal["list", "actor"] = "list"
    texts: tuple[str, ...] = THOUGHTS
    question: str = QUESTION
    answer: str | None = "ok."

    def text(self, seed: int) -> str:
        """The one of the list that belongs to an episode's seed."""
        return choose(self.texts, seed)


@dataclass(frozen=True, slots=True)
class Start:
    """A node of an earlier tree, for episodes to start from.

    Attributes:
        tree: The earlier tree, or as much of it as leads to its nodes.
        turn: Id of the node.
        thought: What is said first; None goes on at once.
    """

    tree: Tree
    turn: str
    thought: Thought | None = None

    @property
    def path(self) -> tuple[Turn, ...]:
        """The turns up to the node, marked as taken over."""
        return tuple(replace(turn, given=True) for turn in self.tree.path(self.turn))

    @property
    def mark(self) -> str:
        """What the ids of new turns begin with, so that the tree has none of them: "r" in a tree of samples, "rr" in what came of that."""
        mark = "r"
        while any(turn.id.startswith(mark) for turn in self.tree.turns):
            mark += "r"
        return mark


def starts_of(tree: Tree, at: At, *, most: int | None = None, thought: Thought | None = None) -> list[Start]:
    """The nodes of a tree to start from, each once, in the order of the tree.

    Args:
        tree: A whole tree.
        at: "end": where episodes ended; "failure": where they ended without success; "error": the first error on the way of these, as the
            critic "first_error" saw it (where it called none Bad, as "failure"; where it did not look, none); "turn": every turn; "random":
            one turn of each episode, drawn by the tree's seed.
        most: Most nodes, drawn by the tree's seed; None is all.
        thought: What is said there.
    """
    wanted = dict.fromkeys(turn.id for turn in _nodes(tree, at))
    chosen = [turn.id for turn in tree.turns if turn.id in wanted]
    if most is not None and len(chosen) > most:
        kept = set(random.Random(f"{tree.seed}/{tree.id}/nodes").sample(chosen, most))
        chosen = [turn for turn in chosen if turn in kept]
    way = {turn.id for node in chosen for turn in tree.path(node)}
    pruned = replace(tree, turns=tuple(turn for turn in tree.turns if turn.id in way), verdicts=(), failures=())
    return [Start(pruned, turn, thought) for turn in chosen]


def _nodes(tree: Tree, at: At) -> Iterator[Turn]:
    for leaf in ended(tree):
        path = [turn for turn in tree.path(leaf.id) if _goes_on(turn)]
        if not path or (at in ("failure", "error") and leaf.success):
            continue
        if at == "turn":
            yield from path
        elif at == "random":
            yield random.Random(f"{tree.seed}/{tree.id}/{leaf.id}").choice(path)
        elif at == "error":
            error = first_error(tree, leaf.id) or path[-1]
            if is_walked(tree, leaf.id) and _goes_on(error):
                yield error
        else:
            yield path[-1]


def _goes_on(turn: Turn) -> bool:
    """Whether the environment is in a state after this turn that can be acted in."""
    ends = turn.done or turn.truncated in ("environment", "disaster")
    return turn.action is not None and turn.observation is not None and not ends


def take_over(conversation: Conversation, renderer: Renderer, start: Start) -> tuple[list[Turn], str]:
    """Bring a conversation that has not started to the node.

    Where the tree was sampled under this very prompt, its ids are taken over as they are. Where it was not (another model's tokens, other
    worked examples), the same is told again: every text of the path becomes ids in this conversation, by its own template.

    Returns:
        The turns up to the node, as they stand in the conversation, and the observation to go on with.

    Raises:
        ContextFull: The path does not fit.
    """
    path, first = start.path, start.tree.first_observation
    if conversation.observe(first).ids == path[0].prompt_ids:
        return list(path), retrace(conversation, path, first_observation=first)
    return _tell_again(conversation, renderer, path, first)


def _tell_again(conversation: Conversation, renderer: Renderer, path: Sequence[Turn], observation: str) -> tuple[list[Turn], str]:
    told: list[Turn] = []
    for turn in path:
        if turn.observation is None:
            continue  # a summary of what is told in full here
        prompt = conversation.observe(observation)
        if prompt.asks_summary:
            raise ContextFull(conversation.context_length, conversation.context_length)
        again = replace(
            turn,
            parent=told[-1].id if told else None,
            extends=prompt.extends,
            fresh=prompt.fresh,
            prompt_ids=prompt.ids,
            completion_ids=renderer.written(turn.text),
            logprobs=None,
            finish="authored",
            draw=replace(turn.draw, kind="forced"),
        )
        conversation.add(again)
        told.append(again)
        observation = turn.observation
    return told, observation
