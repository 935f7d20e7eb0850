"""A tree while it grows: its turns, the states of its nodes, what it cost, and the ways back to a node.

Ids say where a node is: "2" is the third candidate of the root's expansion, "2.0" the first after it; the root is "". They depend on what
was drawn and never on when, and so do the seeds of the requests below a node.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentloop.environment.base import Task
from agentloop.sampling.origin import Origin
from agentloop.sampling.reach import Snapshots, retrace
from agentloop.sampling.seat import Seat, open_conversation
from agentloop.sampling.seed import derive
from agentloop.trace.conversation import Conversation
from agentloop.trace.search_statistics import NodeStatistics, statistics_verdicts
from agentloop.trace.tree import Failure, Tree, Truncation, Turn, Verdict

ROOT = ""


def child_id(node: str, index: int) -> str:
    """Id of a candidate of a node's expansion."""
    return f"{node}.{index}" if node else str(index)


class Growth:
    """The tree of one task.

    Attributes:
        task: The task.
        origin: Where the tree comes from.
        seed: Its seed.
        system_prompt: Text of the system message.
        first_observation: What `reset` returned.
        turns: All turns by id, in the order in which they were added.
        failures: What broke.
        snapshots: States of nodes, as many as are kept, for the way back to them.
        states: Snapshots of all open nodes, to be compared; empty where revisits are not looked for.
        generated: Tokens that were generated for it, kept or not.
        simulations: Walks (or episodes, or levels) that were made.
        solved: Whether an episode succeeded.
        failed: Whether nothing came of it because of what broke, so that it has to be grown again.
    """

    def __init__(self, task: Task, origin: Origin) -> None:
        self.task = task
        self.origin = origin
        self.seed = origin.tree_seed(task.id)
        self.system_prompt = ""
        self.first_observation = ""
        self.turns: dict[str, Turn] = {}
        self.failures: list[Failure] = []
        self.snapshots = Snapshots()
        self.states: dict[str, Any] = {}
        self.generated = 0
        self.simulations = 0
        self.solved = False
        self.failed = False
        self._verdicts: list[Verdict] = []
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since it was begun."""
        return time.monotonic() - self._begun

    def path(self, node: str) -> tuple[Turn, ...]:
        """Turns from the root to a node; those that wrote summaries are among them."""
        turns: list[Turn] = []
        link: str | None = node or None
        while link is not None:
            turns.append(self.turns[link])
            link = self.turns[link].parent
        return tuple(reversed(turns))

    def depth(self, node: str) -> int:
        """Actions on the way to a node."""
        return sum(turn.action is not None for turn in self.path(node))

    def total(self, node: str) -> float:
        """Return on the way to a node."""
        return sum(turn.reward for turn in self.path(node))

    def node_seed(self, node: str, purpose: str) -> int:
        """Seed of what is drawn at a node."""
        return derive(self.seed, purpose, node)

    def conversation(self, seat: Seat, node: str) -> tuple[Conversation, str]:
        """A conversation that has been brought to a node, and the observation that it is to be told next."""
        conversation = open_conversation(seat, self.system_prompt)
        return conversation, retrace(conversation, self.path(node), first_observation=self.first_observation)

    def add(self, turns: Iterable[Turn] = (), verdicts: Iterable[Verdict] = (), failures: Iterable[Failure] = ()) -> None:
        """Add what was found; parents before their children."""
        for turn in turns:
            assert turn.id not in self.turns, turn.id
            self.turns[turn.id] = turn
            self.solved = self.solved or bool(turn.success)
        self._verdicts += verdicts
        self.failures += failures

    def cut(self, turn: str, truncated: Truncation) -> None:
        """The path ends at this turn without the environment's saying so, hence unsuccessfully."""
        self.turns[turn] = replace(self.turns[turn], truncated=truncated, success=False)

    def cut_open(self, turns: Iterable[str], truncated: Truncation) -> None:
        """Cut the paths that end at these turns; one that a rollout played on from has an end already (a critic's turn ends nothing)."""
        parents = {turn.parent for turn in self.turns.values() if not turn.from_critic}
        for turn in turns:
            if turn not in parents:
                self.cut(turn, truncated)

    def tree(self, statistics: Mapping[str, NodeStatistics] | None = None) -> Tree:
        """The tree, with the statistics of its nodes by turn."""
        found = [
            verdict for turn, known in (statistics or {}).items() for verdict in statistics_verdicts(turn, known, stage=self.origin.stage)
        ]
        return Tree(
            id=self.origin.tree_id(self.task.id),
            task=self.task.id,
            environment=self.origin.environment,
            split=self.origin.split,
            turns=tuple(self.turns.values()),
            verdicts=(*self._verdicts, *found),
            failures=tuple(self.failures),
            samples=tuple(range(max(1, self.simulations))),
            system_prompt=self.system_prompt,
            first_observation=self.first_observation,
            task_data=dict(self.task.data),
            seed=self.seed,
        )

    def partial(self, node: str, turns: Sequence[Turn] = ()) -> Tree:
        """The path to a node as a tree of its own, with further turns, for a critic to read."""
        whole: dict[str, Any] = {turn.id: turn for turn in (*self.path(node), *turns)}
        return replace(self.tree(), turns=tuple(whole.values()), verdicts=(), failures=())
