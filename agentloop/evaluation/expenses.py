"""What episodes cost in time and money. Kept apart from the measurements, which are the same however fast the machine is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from agentloop.errors import Mistake
from agentloop.evaluation.intervals import Cluster, mean
from agentloop.trace.ledger import Tokens
from agentloop.trace.tree import Tree


@dataclass(frozen=True, slots=True)
class Price:
    """What tokens cost, in dollars (or whatever the user pays in) for a million.

    Attributes:
        prompt: Of tokens that are read; those from the prefix cache cost the same here.
        generated: Of tokens that are written.
    """

    prompt: float
    generated: float

    @classmethod
    def parse(cls, text: str) -> Price:
        """From "0.15,0.6". Raises `Mistake`."""
        parts = text.split(",")
        try:
            prompt, generated = (float(part) for part in parts)
        except ValueError:
            raise Mistake("--price is two numbers", found=text, expected="PROMPT,GENERATED in money for a million tokens") from None
        if prompt < 0 or generated < 0:
            raise Mistake("a price is negative", found=text)
        return cls(prompt, generated)

    def of(self, tokens: Tokens) -> float:
        """What these tokens cost."""
        return (tokens.prompt * self.prompt + tokens.generated * self.generated) / 1e6


@dataclass
class Expenses:
    """Seconds by task, to which trees are added one at a time.

    Attributes:
        seconds: By task, the episodes and the seconds that their turns took, of the model and of the environment. Episodes run side by
            side, so that the wall clock shows less than their sum.
    """

    seconds: dict[str, Cluster] = field(default_factory=dict)

    def add(self, tree: Tree) -> None:
        """Take up the episodes of a tree that did not break."""
        broken = {failure.turn for failure in tree.failures if failure.turn is not None}
        task = f"{tree.environment}/{tree.task}"
        for leaf in tree.leaves():
            if leaf.id not in broken:
                n, total = self.seconds.get(task, (0, 0.0))
                self.seconds[task] = Cluster(n + 1, total + sum(sum(turn.seconds) for turn in tree.path(leaf.id) if not turn.given))

    def to_json(self, tokens: Tokens, price: Price | None) -> dict[str, Any]:
        """Seconds an episode with their interval, and what all tokens cost where a price is given."""
        found: dict[str, Any] = {}
        if self.seconds:
            found["seconds"] = asdict(mean([cluster for _, cluster in sorted(self.seconds.items())]))
        if price is not None:
            found["cost"] = {"total": price.of(tokens), "price": asdict(price), "per_episode": _per_episode(self.seconds, price.of(tokens))}
        return found


def _per_episode(seconds: Mapping[str, Cluster], total: float) -> float | None:
    episodes = sum(cluster.n for cluster in seconds.values())
    return total / episodes if episodes else None
