"""`sample` makes trees: groups of episodes, best-of-n, beam search and tree search, from tasks or from given nodes.

`Play` holds what `evaluate` needs too: whose tasks, how many, how they are decoded and what limits an episode.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from agentloop.recipe.part import Amount, Count, Flag, Name, NonNegative, NotEmpty, Part, Positive, PositiveShare, Share, trouble
from agentloop.recipe.reference import Reference
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.settings import ArtifactType
from agentloop.recipe.stage import Overflow, Work

Deduplicate = Literal["effect", "action", "none"]
MAX_TURNS: Scheduled[Count] = Scheduled.constant(16)


class StartFrom(Part):
    """Nodes of trees that episodes start from, in place of the first observation."""

    from_: Reference = Field(alias="from")
    """The trees; for an `evaluate` also an `evaluate`, whose episodes are meant."""
    at: Literal["end", "failure", "error", "turn", "random"] = "end"
    """Which nodes: where episodes ended, ended without success, where a critic found the first error, every turn, or a random turn of each
    episode.
    """
    nodes: Scheduled[Count] | None = None
    """Most nodes a tree, drawn at random; null is all."""
    thought: Literal["none", "list", "actor"] = "none"
    """Revision thought before the episode goes on: none, one of `thoughts`, or the actor's own answer to `question`."""
    thoughts: Annotated[tuple[str, ...], NotEmpty] | None = None
    """The list, in the form that turns have in the environment; null is a list of ten sentences."""
    question: str | None = None
    """What the actor is asked, in place of the question that there is."""
    answer: str = "ok."
    """What the model is shown after its thought."""
    act: Flag = False
    """Whether the thought is given to the environment as an action, and what that answers is shown in place of `answer`."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        """`start_from: errors` is short for `start_from: {from: errors}`."""
        return {"from": value} if isinstance(value, str) else value


class Play(Work):
    """A stage that plays episodes."""

    tasks: Scheduled[Count] | None = None
    """How many tasks of the split; null is all of them."""
    samples: Scheduled[Count] = Scheduled.constant(1)
    """Episodes a task."""
    temperature: Scheduled[NonNegative] = Scheduled.constant(1.0)
    """Sampling temperature; 0 is greedy."""
    top_p: Scheduled[PositiveShare] = Scheduled.constant(1.0)
    """Nucleus truncation; 1 is none."""
    top_k: Scheduled[Amount] = Scheduled.constant(0)
    """Truncation to the k likeliest tokens; 0 is none."""
    max_tokens: Scheduled[Count] = Scheduled.constant(256)
    """Most tokens a turn."""
    max_turns: Scheduled[Count] = MAX_TURNS
    """Most turns an episode."""
    overflow: Overflow = "stop"
    """What happens when a context is full: the episode stops, the oldest turns are dropped, or they are summarised."""
    concurrency: Count = 32
    """Episodes that are played at once."""
    max_failures: Share = 0.1
    """Share of broken episodes above which the run stops."""
    start_from: StartFrom | None = None
    """Nodes of earlier trees that episodes start from; `samples` is then episodes a node, and `max_turns` counts from there."""

    @property
    def inputs(self) -> tuple[Reference, ...]:
        return (*(self.from_ or ()), *(() if self.start_from is None else (self.start_from.from_,)))


class Seat(Part):
    """Who sits in a seat of a multi-player episode."""

    role: Name
    """Role that plays it."""
    temperature: Scheduled[NonNegative] | None = None
    """In place of the stage's."""
    max_tokens: Scheduled[Count] | None = None
    """In place of the stage's."""
    prompt: str | None = None
    """System prompt of the seat, in place of the environment's."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        """`seats: {attacker: red}` is short for `seats: {attacker: {role: red}}`."""
        return {"role": value} if isinstance(value, str) else value


class Memory(Part):
    """Entries of a store that are put into the prompt."""

    from_: Reference = Field(alias="from")
    """The store."""
    top: Scheduled[Count] = Scheduled.constant(4)
    """Most entries an episode, the most similar first."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        return {"from": value} if isinstance(value, str) else value


class Sample(Play):
    """Plays episodes and keeps every turn: makes trees."""

    kind: ClassVar[str] = "sample"
    takes: ClassVar[tuple[ArtifactType, ...]] = ("tasks",)
    makes: ClassVar[ArtifactType | None] = "trees"

    split: Literal["train", "dev"] = "train"
    """Split that the tasks come from. What was sampled from dev may be measured, never trained on."""
    seats: dict[Name, Seat] | None = None
    """Seat to role, for environments with several seats."""
    environments: dict[Name, Scheduled[NonNegative]] | None = None
    """Share of each environment, by its name in the recipe's `environments`."""
    memory: Memory | None = None
    """Entries of a store in the prompt."""
    draw: Literal["policy", "admissible"] = "policy"
    """Where actions come from: the model's own words, or the admissible actions of the environment, scored by the model."""
    tokens: Scheduled[Count] | None = None
    """Generated tokens a task after which nothing further is begun, for comparisons at equal cost; null is no limit."""
    seconds: Scheduled[Positive] | None = None
    """Seconds a task after which nothing further is begun; null is no limit. What is sampled then depends on the clock."""
    until_win: Flag = False
    """Whether sampling of a task ends with its first success."""
    into: Name | None = None
    """Store that the trees are added to."""

    @model_validator(mode="before")
    @classmethod
    def _on_train(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("split") == "test":
            raise trouble(
                "the test split is measured once, by an 'evaluate' in 'final', and never sampled for training",
                path=("split",),
                found="test",
                expected="train or dev",
            )
        return value

    @property
    def searches(self) -> bool:
        """Whether whole trees are grown: by every method but a group without limits, whose episodes do not wait for each other."""
        return True

    @property
    def inputs(self) -> tuple[Reference, ...]:
        return (*super().inputs, *(() if self.memory is None else (self.memory.from_,)))


class GroupSample(Sample):
    """`samples` episodes a task, independent of each other."""

    method: Literal["group"] = "group"
    samples: Scheduled[Count] = Scheduled.constant(8)
    """Episodes a task: the size of the group."""

    @property
    def searches(self) -> bool:
        return self.tokens is not None or self.seconds is not None or self.until_win


class Search(Sample):
    """Methods that grow one tree a task."""

    without: ClassVar[frozenset[str]] = frozenset({"samples"})
    """Keys of every `sample` that the method does not have; a resolved recipe leaves them out."""

    @model_serializer(mode="wrap")
    def _of_the_method(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in dump(self).items() if key not in self.without}

    @model_validator(mode="after")
    def _one_tree(self) -> Self:
        if self.samples != Scheduled.constant(1):
            raise trouble(
                "a search grows one tree a task, so it has no 'samples'", path=("samples",), expected="another method, or no 'samples'"
            )
        return self


class BestOfN(Search):
    """In each turn `width` candidates, of which the critic's best is played; without a critic, `width` whole episodes."""

    method: Literal["best_of_n"]
    width: Scheduled[Count] = Scheduled.constant(8)
    """Candidates a turn; without a critic, episodes."""
    critic: Name | None = None
    """Role that scores candidates; null is the environment's reward at the end of the episode."""


class Beam(Search):
    """The `width` best partial episodes are kept after each turn."""

    method: Literal["beam"]
    width: Scheduled[Count] = Scheduled.constant(4)
    """Partial episodes that are kept."""
    branch: Scheduled[Count] = Scheduled.constant(4)
    """Candidates a turn of each."""
    deduplicate: Deduplicate = "effect"
    """Which candidates of a partial episode are one: those that did the same, those that said the same action, or none."""
    critic: Name | None = None
    """Role that scores partial episodes; null is the reward so far."""


class TreeSearch(Search):
    """Monte-Carlo tree search by UCT (Agent-R, arXiv:2501.11425)."""

    without: ClassVar[frozenset[str]] = frozenset({"samples", "max_turns"})
    method: Literal["mcts"]
    simulations: Scheduled[Count] = Scheduled.constant(8)
    """Walks from the root to a leaf, a task."""
    width: Scheduled[Count] = Scheduled.constant(4)
    """Candidates an expansion."""
    depth: Scheduled[Count] = Scheduled.constant(20)
    """Most turns of a path."""
    exploration: Scheduled[NonNegative] = Scheduled.constant(0.25)
    """Weight of the exploration term."""
    deduplicate: Deduplicate = "effect"
    """Which candidates of an expansion are one: those that did the same, those that said the same action, or none."""
    leaves: Count = 1
    """Leaves of a tree that are expanded at once. More than 1 chooses some before the results of others are in (virtual loss)."""
    disasters: Flag = True
    """Whether a negative reward ends a path, with the value 0."""
    revisits: Literal["keep", "end"] = "keep"
    """Whether a path goes on or ends where it leads back to one of its own states; the environment must give snapshots to tell."""
    critic: Name | None = None
    """Role that values leaves; null is the environment's reward at the end."""
    rollout: Name | None = None
    """Role that plays on from leaves, whose return values them; null is the environment's reward at the end."""

    @model_validator(mode="after")
    def _depth_alone(self) -> Self:
        if self.max_turns != MAX_TURNS:
            raise trouble("method 'mcts' has no 'max_turns'", path=("max_turns",), expected="'depth', the most turns of a path")
        if self.critic is not None and self.rollout is not None:
            raise trouble("leaves are valued by a critic or by rollouts", path=("rollout",), expected="'critic' or 'rollout', not both")
        return self


SAMPLING: tuple[type[Sample], ...] = (GroupSample, BestOfN, Beam, TreeSearch)

__all__ = ["SAMPLING", "Beam", "BestOfN", "GroupSample", "Memory", "Play", "Sample", "Search", "Seat", "StartFrom", "TreeSearch"]
