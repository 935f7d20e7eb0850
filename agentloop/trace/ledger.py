"""The token ledger: how many tokens each stage, iteration and role cost, since every comparison at equal budget rests on it.

What was sampled is derived from the tree artifact and not counted along the way, so a killed and resumed stage counts every turn once.
Entries of a stage and iteration are *set*, not added to, so that booking a stage twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from agentloop.trace.tree import Tree


class Account(NamedTuple):
    """Whose tokens: id of the stage, iteration, and the role whose adapter (or base) ran."""

    stage: str
    iteration: int
    role: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counts of tokens.

    Attributes:
        prompt: Fed to the model by sampling requests, the cached ones included.
        cached: Of these, how many came from the engine's prefix cache.
        generated: Sampled, stop tokens included.
        judged: Read and written by critics; these are in `judged` alone.
        trained: Passed through the trainer (all tokens of all rows, times epochs).
        turns: Requests, critics' included.
    """

    prompt: int = 0
    cached: int = 0
    generated: int = 0
    judged: int = 0
    trained: int = 0
    turns: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(Tokens)})

    @property
    def total(self) -> int:
        """All that was computed: prompts less what was cached, generated, judged, trained."""
        return self.prompt - self.cached + self.generated + self.judged + self.trained


class Ledger:
    """Tokens by account. Ledgers of different stages merge with `+`; equal accounts are then added up."""

    def __init__(self, entries: Mapping[Account, Tokens] | None = None) -> None:
        self._entries: dict[Account, Tokens] = dict(entries or {})

    @staticmethod
    def of_trees(trees: Iterable[Tree], stage: str, iteration: int = 0) -> Ledger:
        """What sampling (and judging) these trees cost; a pure function of them."""
        entries: dict[Account, Tokens] = {}
        for tree in trees:
            context: dict[str, int] = {}  # length of context and completion
            for turn in tree.turns:
                prompt = len(turn.prompt_ids) + (context[turn.extends] if turn.extends is not None else 0)
                generated = len(turn.completion_ids)
                context[turn.id] = prompt + generated
                if turn.authored or turn.given:  # nobody sampled it, or it was paid for where it was
                    continue
                if turn.foreign:
                    prompt, generated = (int(turn.info.get(f"{name}_tokens", 0)) for name in ("prompt", "completion"))
                if turn.from_critic:
                    tokens = Tokens(judged=prompt + generated, turns=1)
                else:
                    tokens = Tokens(prompt=prompt, cached=turn.cached_tokens, generated=generated, turns=1)
                    if turn.draw.kind == "admissible":  # read by the model, not written
                        tokens = Tokens(prompt=prompt + generated, cached=turn.cached_tokens, turns=1)
                    spent = turn.spent
                    tokens += Tokens(prompt=spent.prompt, cached=spent.cached, generated=spent.generated, turns=spent.requests)
                account = Account(stage, iteration, turn.role)
                entries[account] = entries.get(account, Tokens()) + tokens
        return Ledger(entries)

    @staticmethod
    def of_training(tokens: int, stage: str, iteration: int = 0, role: str = "actor") -> Ledger:
        """What training cost: `tokens` is all tokens of all rows, times epochs."""
        return Ledger({Account(stage, iteration, role): Tokens(trained=tokens)})

    def book(self, other: Ledger) -> None:
        """Take over the entries of finished stages; those of the same stage and iteration are replaced: booking twice is harmless."""
        booked = {(account.stage, account.iteration) for account in other._entries}
        self._entries = {account: tokens for account, tokens in self._entries.items() if (account.stage, account.iteration) not in booked}
        self._entries.update(other._entries)

    def total(self, *, stage: str | None = None, iteration: int | None = None, role: str | None = None) -> Tokens:
        """The sum of all entries that match."""
        wanted = Tokens()
        for account, tokens in self._entries.items():
            if stage in (None, account.stage) and iteration in (None, account.iteration) and role in (None, account.role):
                wanted += tokens
        return wanted

    def __add__(self, other: Ledger) -> Ledger:
        entries = dict(self._entries)
        for account, tokens in other._entries.items():
            entries[account] = entries.get(account, Tokens()) + tokens
        return Ledger(entries)

    def __iter__(self) -> Iterator[tuple[Account, Tokens]]:
        return iter(sorted(self._entries.items()))

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and self._entries == other._entries

    __hash__ = None  # type: ignore[assignment]

    def to_json(self) -> list[dict[str, Any]]:
        """A JSON value: one object an account, sorted."""
        return [account._asdict() | asdict(tokens) for account, tokens in self]

    @staticmethod
    def from_json(value: Iterable[Mapping[str, Any]]) -> Ledger:
        """The ledger that `to_json` told of."""
        counts = [field.name for field in fields(Tokens)]
        return Ledger(
            {
                Account(entry["stage"], entry["iteration"], entry["role"]): Tokens(**{name: entry.get(name, 0) for name in counts})
                for entry in value
            }
        )
