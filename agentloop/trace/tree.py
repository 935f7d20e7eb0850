"""Trees of turns: everything that is ever sampled, judged or authored, with the exact ids that the model saw.

The invariant that this module keeps is the law of the design, *tokens are exact*. A turn has two links:

- `parent` is what happened before it in the episode;
- `extends` is the turn whose ids its context continues, or None where a context was started afresh (`fresh` then says why).

A turn stores in `prompt_ids` only what was fed to the model since the turn that it extends (everything, if it extends none) and in
`completion_ids` what the model produced, stop token included. The context that a turn was sampled from is therefore the concatenation along
`extends`, and grows only by appended ids. Sampled ids are never tokenised again.

A group of G samples is a tree with G turns whose parent is None; a search is a bushier tree; a revision is a new path from an inner turn; a
critic's question and its answer are a turn of seat "critic". A tree may arrive in *fragments* (same id, disjoint turns), one a finished
episode, which `Tree.merge` joins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

DrawKind = Literal["policy", "deduplicated", "uct", "beam", "best_of_n", "admissible", "forced", "constrained", "foreign", "authored"]
"""How a turn's completion came about. Only "policy" (a plain draw of the behaviour policy) has an importance ratio: of de-duplicated draws
one stands for several, what follows a node that a search chose (uct, beam, best_of_n) is there because of its outcome, and an admissible
action was scored and not generated.

"constrained" was drawn under a grammar or from given choices. "foreign" was said by a model whose ids this tree cannot hold (one behind a
URL, a scoring model): such a turn has text and no ids, so nothing can train on it.
"""

Finish = Literal["stop", "length", "authored"]
"""Why a completion ended: a stop token (it is the last id), a token limit, or nobody sampled it."""

FreshReason = Literal["start", "seat", "template", "window", "summary", "critic", "authored"]
"""Why a context was started afresh instead of continuing another turn's ids."""

Truncation = Literal["turns", "context", "environment", "budget", "time", "disaster", "loop"]
"""What cut an episode short before the environment said that it was done. A search ends a path at a negative reward ("disaster") and, if it
is told to, where it leads back to one of its own states ("loop").
"""


@dataclass(frozen=True, slots=True)
class Draw:
    """How a completion was sampled.

    Attributes:
        adapter: Versioned name of the adapter that generated it (it contains the content hash), or "base".
        temperature: Sampling temperature; log-probabilities are those of the distribution after temperature (processed).
        top_p: Nucleus truncation; 1.0 means none.
        top_k: Truncation to the k likeliest tokens; 0 means none.
        kind: See `DrawKind`.
        seed: Seed of the request, or None where the engine was given none.
        copies: How many draws did the same and are this turn now, itself included; more than 1 only after de-duplication.
    """

    adapter: str
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    kind: DrawKind = "policy"
    seed: int | None = None
    copies: int = 1

    @property
    def has_ratio(self) -> bool:
        """Whether an importance ratio against this draw's log-probabilities means anything."""
        return self.kind == "policy" and self.top_p == 1.0 and self.top_k == 0


@dataclass(frozen=True, slots=True)
class Spent:
    """What the engine was asked on the way to a turn, beside the turn's own request: copies that were de-duplicated, actions that were
    scored and not taken.

    Attributes:
        requests: How many requests.
        prompt: Prompt tokens of these.
        cached: Of them, taken from the prefix cache; not part of the content hash.
        generated: Tokens that were generated and not kept.
    """

    requests: int = 0
    prompt: int = 0
    cached: int = 0
    generated: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.requests + other.requests, self.prompt + other.prompt, self.cached + other.cached, self.generated + other.generated
        )


@dataclass(frozen=True, slots=True)
class Turn:
    """One node: the tokens that the model produced and the observation that came back.

    Attributes:
        id: Unique within the tree and independent of timing, for example "3.0" for the first turn of sample 3.
        parent: Turn before this one in the episode; None for the first.
        extends: Turn whose context and completion this turn's context continues; None if it was started afresh.
        fresh: Why the context was started afresh; None exactly when `extends` is set.
        prompt_ids: Ids fed since the end of `extends`' completion, or the whole prompt if `extends` is None.
        completion_ids: Ids that the model produced, including the stop token when `finish` is "stop".
        logprobs: Natural log-probabilities of `completion_ids` under `draw`, same length; None when authored.
        text: `completion_ids` decoded, without the stop token.
        action: What the environment was given (may differ from the text: a parsed tool call, a stripped thought).
        observation: What the environment answered; None where the turn had no step (a critic's turn, a failed step).
        reward: Reward of this step.
        done: Whether the environment ended the episode with this step.
        success: Whether the episode succeeded; set on the last turn of an episode only.
        truncated: What cut the episode after this turn; None if nothing did.
        finish: Why the completion ended.
        draw: How it was sampled.
        seat: The seat that acted.
        role: The role (hence adapter) that played the seat.
        given: Whether the turn was taken over from another tree, on the way to the node that an episode started from. It was played and
            paid for there: here it is context, no episode of its own, and no builder trains on it.
        info: What the environment reports of the step (JSON values), shown and stored, never trained on. Of a foreign turn: "question",
            the text that was asked, "prompt_tokens" and "completion_tokens" as the model's server counts them, and "constrained" where it
            held the answer to choices.
        seconds: Wall-clock seconds of (generation, environment step); not part of the content hash.
        cached_tokens: Prompt tokens that the engine took from its prefix cache; not part of the content hash.
        spent: What else the engine was asked on the way to this turn.
    """

    id: str
    parent: str | None
    extends: str | None
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    text: str
    draw: Draw
    fresh: FreshReason | None = None
    action: str | None = None
    observation: str | None = None
    reward: float = 0.0
    done: bool = False
    success: bool | None = None
    truncated: Truncation | None = None
    finish: Finish = "stop"
    seat: str = "actor"
    role: str = "actor"
    given: bool = False
    info: dict[str, Any] = field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 0.0)
    cached_tokens: int = 0
    spent: Spent = Spent()

    def __post_init__(self) -> None:
        if (self.extends is None) == (self.fresh is None):
            raise ValueError(f"turn {self.id}: exactly one of extends={self.extends!r} and fresh={self.fresh!r} must be set")
        if self.logprobs is not None and len(self.logprobs) != len(self.completion_ids):
            raise ValueError(f"turn {self.id}: {len(self.logprobs)} log-probabilities for {len(self.completion_ids)} completion ids")
        if self.foreign and (self.extends is not None or self.prompt_ids or self.completion_ids or self.logprobs is not None):
            raise ValueError(f"turn {self.id}: the ids of a foreign model are not known, so it may have none and extend nothing")

    @property
    def authored(self) -> bool:
        """Whether the completion was written rather than sampled."""
        return self.logprobs is None and not self.foreign

    @property
    def foreign(self) -> bool:
        """Whether another model said it, whose ids are not known."""
        return self.draw.kind == "foreign"

    @property
    def from_critic(self) -> bool:
        """Whether a critic said it: it judges its parent, or goes on with a critic's turn, and is no part of the episode."""
        return self.seat == "critic" or self.fresh == "critic"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a critic says of a turn or of the path that ends in it.

    Attributes:
        critic: Name of the critic, for example "outcome" or "first_error".
        turn: Id of the turn that is judged (for a path, its last turn).
        value: The score; None where the critic's answer could not be parsed (`label` is then "unparsable").
        label: The critic's word, for example "Bad".
        turns: Ids of the critic's own turns in this tree.
        stage: Id of the stage that judged.
    """

    critic: str
    turn: str
    value: float | None
    label: str | None = None
    turns: tuple[str, ...] = ()
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """An episode that broke: not an outcome of the policy, and never an "empty trajectory".

    Attributes:
        kind: Where and how, for example "environment.step.timeout" or "engine.connection".
        message: The cause in a line.
        sample: The sample of the group (or simulation of the search) that broke.
        turn: The last turn before the failure; None if it broke in reset.
        traceback: Full traceback, kept for the first failure of each kind only.
    """

    kind: str
    message: str
    sample: int
    turn: str | None = None
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """All turns of one task under one stage, with verdicts and failures.

    Attributes:
        id: Unique within a run: "ITERATION/STAGE/TASK", for example "002/trees/add-17".
        task: Id of the task.
        environment: Id of the environment.
        split: "train", "dev" or "test".
        system_prompt: Text of the system message; "" if none.
        first_observation: What `reset` returned, keyed by seat.
        seed: Seed of the tree, from which those of its samples derive.
        turns: Ordered so that every parent precedes its children.
        samples: Samples (episodes or simulations) that this fragment holds; the whole tree holds all of them.
    """

    id: str
    task: str
    environment: str
    split: str
    turns: tuple[Turn, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    failures: tuple[Failure, ...] = ()
    samples: tuple[int, ...] = ()
    system_prompt: str = ""
    first_observation: str = ""
    task_data: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    _by_id: dict[str, Turn] = field(init=False, repr=False, compare=False, hash=False)
    _children: dict[str | None, list[Turn]] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        by_id: dict[str, Turn] = {}
        children: dict[str | None, list[Turn]] = {}
        for turn in self.turns:
            if turn.id in by_id:
                raise ValueError(f"tree {self.id}: two turns with id {turn.id!r}")
            for name, link in (("parent", turn.parent), ("extends", turn.extends)):
                if link is not None and link not in by_id:
                    raise ValueError(f"tree {self.id}: turn {turn.id!r} has {name} {link!r}, which does not precede it")
            if turn.extends is not None and by_id[turn.extends].foreign:
                raise ValueError(f"tree {self.id}: turn {turn.id!r} extends {turn.extends!r}, whose ids are not known")
            by_id[turn.id] = turn
            children.setdefault(turn.parent, []).append(turn)
        object.__setattr__(self, "_by_id", by_id)
        object.__setattr__(self, "_children", children)

    def __getitem__(self, turn_id: str) -> Turn:
        """The turn of that id; raises `KeyError`."""
        return self._by_id[turn_id]

    def __contains__(self, turn_id: str) -> bool:
        return turn_id in self._by_id

    def children(self, turn_id: str | None, *, critics: bool = False) -> Sequence[Turn]:
        """Turns whose parent is `turn_id` (None: the first turns), in the order of `turns`: the episodes' turns, or the critics' alone."""
        return [turn for turn in self._children.get(turn_id, ()) if turn.from_critic == critics]

    def leaves(self, *, seat: str | None = None) -> Iterator[Turn]:
        """Turns without children that ended an episode or were cut, critics' left out; for seat "critic", the last turns of critics. Turns
        that were taken over from another tree are none.
        """
        for turn in self.turns:
            if turn.given or turn.from_critic != (seat == "critic") or (seat is not None and turn.seat != seat):
                continue
            if not self.children(turn.id, critics=turn.from_critic):
                yield turn

    def path(self, turn_id: str) -> tuple[Turn, ...]:
        """Turns from the first to `turn_id` along `parent`."""
        turns = []
        link: str | None = turn_id
        while link is not None:
            turn = self[link]
            turns.append(turn)
            link = turn.parent
        return tuple(reversed(turns))

    def context_ids(self, turn_id: str) -> list[int]:
        """All ids that the model saw before it produced the turn's completion: the prompt of its request."""
        chain = self.segment(turn_id)
        ids: list[int] = []
        for turn in chain[:-1]:
            ids += turn.prompt_ids
            ids += turn.completion_ids
        return ids + list(chain[-1].prompt_ids)

    def segment(self, turn_id: str) -> tuple[Turn, ...]:
        """Turns of one unbroken context that ends in `turn_id`: from where it was started afresh, along `extends`."""
        turns = []
        link: str | None = turn_id
        while link is not None:
            turn = self[link]
            turns.append(turn)
            link = turn.extends
        return tuple(reversed(turns))

    def segments(self, leaf_id: str, *, seat: str = "actor") -> tuple[tuple[Turn, ...], ...]:
        """The trajectory of `seat` along the path to `leaf_id`, cut where a context was started afresh; in order of time."""
        path = [turn for turn in self.path(leaf_id) if turn.seat == seat]
        continued = {turn.extends for turn in path if turn.extends is not None}
        return tuple(self.segment(turn.id) for turn in path if turn.id not in continued)

    def episode_return(self, leaf_id: str, *, seat: str | None = None) -> float:
        """Sum of rewards along the path to `leaf_id` (of one seat, or of all)."""
        return sum(turn.reward for turn in self.path(leaf_id) if seat is None or turn.seat == seat)

    def with_verdicts(self, verdicts: Sequence[Verdict], turns: Sequence[Turn] = ()) -> Tree:
        """A copy with verdicts, and the critics' turns that led to them, appended."""
        return replace(self, verdicts=self.verdicts + tuple(verdicts), turns=self.turns + tuple(turns))

    @staticmethod
    def merge(fragments: Sequence[Tree]) -> Tree:
        """Join fragments of one tree, ordered by their samples, so that the result does not depend on who finished first.

        Fragments of episodes that start from one node each hold the way to it; turns taken over (`Turn.given`) are kept once.

        Raises:
            ValueError: The fragments are of different trees, or share a turn that they did not take over.
        """
        if not fragments:
            raise ValueError("no fragments to merge")
        ordered = sorted(fragments, key=lambda fragment: fragment.samples)
        first = ordered[0]
        for other in ordered[1:]:
            if (other.id, other.task, other.environment) != (first.id, first.task, first.environment):
                raise ValueError(f"fragments of different trees: {first.id!r} and {other.id!r}")
        turns: list[Turn] = []
        taken: dict[str, Turn] = {}
        for turn in (turn for fragment in ordered for turn in fragment.turns):
            if not turn.given or turn.id not in taken:
                turns.append(turn)
                taken |= {turn.id: turn} if turn.given else {}
            elif taken[turn.id] != turn:
                raise ValueError(f"tree {first.id}: two fragments took over turn {turn.id!r}, each another")
        return replace(
            first,
            turns=tuple(turns),
            verdicts=tuple(verdict for fragment in ordered for verdict in fragment.verdicts),
            failures=tuple(failure for fragment in ordered for failure in fragment.failures),
            samples=tuple(sample for fragment in ordered for sample in fragment.samples),
        )
