"""`build` makes rows (or tasks) from trees by a dataset builder, or mixes artifacts in given shares."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from agentloop.recipe.part import Count, Flag, Name, NonNegative, NotEmpty, Number, Positive, Share, trouble
from agentloop.recipe.reference import Reference, References, ReferenceText
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.settings import ArtifactType
from agentloop.recipe.stage import Work


class Build(Work):
    """Reads artifacts and makes others; pure, so it needs neither an engine nor an environment."""

    kind: ClassVar[str] = "build"
    takes: ClassVar[tuple[ArtifactType, ...]] = ("trees",)
    makes: ClassVar[ArtifactType | None] = "rows"
    needs_input: ClassVar[bool] = True

    size: Scheduled[Count] | None = None
    """Most rows or tasks that are kept, drawn at random; null is all."""
    into: Name | None = None
    """Store that the result is added to."""


class Mix(Build):
    """Artifacts of one type in given shares: `mix: {new: 0.8, old@all: 0.2}`."""

    takes: ClassVar[tuple[ArtifactType, ...]] = ("rows", "tasks", "trees")

    dataset: ClassVar[str] = "mix"

    mix: Annotated[dict[ReferenceText, Scheduled[NonNegative]], NotEmpty]
    """Reference to share; the shares add up to 1. Written in place of `from`."""

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, value: object) -> object:
        if isinstance(value, dict) and "from" in value:
            raise trouble("a build has 'from' or 'mix', not both", path=("from",))
        return value

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        add_up(self.mix, "mix")
        return self

    @property
    def inputs(self) -> tuple[Reference, ...]:
        return tuple(Reference.parse(name) for name in self.mix)


def add_up(shares: dict[str, Scheduled[float]], key: str) -> None:
    """Raise unless shares that never change add up to 1."""
    if all(share.shape == "constant" for share in shares.values()):
        total = sum(share.at(0) for share in shares.values())
        if abs(total - 1.0) > 1e-6:
            raise trouble(f"the shares of {key!r} add up to {total:g}", path=(key,), expected="a sum of 1")


class TreeBuild(Build):
    """A build from trees."""

    from_: References = Field(alias="from")
    """The trees."""
    seat: Name | None = None
    """Only turns of this seat; null is all of the role's."""
    verdicts: dict[str, Scheduled[Number]] = {}
    """Weights of critics' verdicts, by the critic's name, which are added to the return: of each the least that it gave on the way."""


class SelfImitation(TreeBuild):
    """Trajectories at or above a reward (ReST-EM, arXiv:2312.06585)."""

    dataset: Literal["self_imitation"]
    min_reward: Scheduled[Number] = Scheduled.constant(1.0)
    """Least return of an episode."""
    best: Scheduled[Count] | None = None
    """Most trajectories a task, the best ones; null is all."""
    per_task: Scheduled[Count] | None = None
    """Most rows a task over all trees; null is no limit."""
    deduplicate: Flag = True
    """Whether trajectories of a task that did the same count once."""
    train_after_overflow: Flag = False
    """Whether segments that began with a dropped window or a summary train too."""


class Revision(TreeBuild):
    """Base of the builds that splice a bad path to a good one."""

    alpha: Scheduled[Number] = Scheduled.constant(1.0)
    """Least return of a good path."""
    beta: Scheduled[NonNegative] = Scheduled.constant(0.2)
    """Least difference between a good path and a bad one."""
    best: Scheduled[Count] | None = None
    """Most good paths a task, by return, then by fewer turns; null is all."""
    per_task: Scheduled[Count] | None = None
    """Most pairs a task, the widest apart; null is all."""
    good: Flag = True
    """Whether good paths are rows too."""
    thoughts: Annotated[tuple[str, ...], NotEmpty] | None = None
    """Revision thoughts, of which each pair has one, in the form that turns have in the environment; null is a list of ten sentences."""
    answer: str = "ok."
    """What the model is shown after its thought."""


class Reflection(Revision):
    """Bad paths, spliced at the first error to a good path by a revision thought (Agent-R, arXiv:2501.11425): authored rows."""

    dataset: Literal["reflection"]
    form: Literal["published", "replayed"] = "published"
    """`published`: two paths of a tree are spliced. `replayed`: episodes that a `sample` with `start_from` really went on with."""


class DirectRevision(Revision):
    """Bad paths, spliced at their end to a good path by a revision thought: authored rows."""

    dataset: Literal["direct_revision"]


class OptimalOnly(TreeBuild):
    """Good paths alone: the rows that `reflection` adds with `good`."""

    dataset: Literal["optimal_only"]
    alpha: Scheduled[Number] = Scheduled.constant(1.0)
    """Least return of a good path."""
    best: Scheduled[Count] | None = None
    """Most good paths a task, by return, then by fewer turns; null is all."""


class Attempts(TreeBuild):
    """Each attempt at a task is a row, weighted by exp(reward / temperature) (RISE, arXiv:2407.18219)."""

    dataset: Literal["attempts"]
    keep: Literal["all", "better", "best", "success"] = "all"
    """Which attempts: all, those better than the one before, the best, or successes."""
    temperature: Scheduled[Positive] = Scheduled.constant(0.4)
    """Of the weights."""
    center: Flag = False
    """Whether the mean reward of the task is taken off first."""
    siblings: Literal["all", "best"] = "all"
    """Of several attempts from one point: all, or the one with the highest reward."""


class Preference(TreeBuild):
    """Pairs of a better and a worse trajectory of a task, for preference training."""

    dataset: Literal["preference"]
    unit: Literal["trajectory", "turn"] = "trajectory"
    """What is compared: whole trajectories from where they part, or sibling turns by the mean return below them."""
    margin: Scheduled[NonNegative] = Scheduled.constant(0.0)
    """Least difference in return or verdict, exclusive."""
    pairs: Scheduled[Count] = Scheduled.constant(1)
    """Most pairs a task over all trees, the widest apart first."""
    by: str | None = None
    """Critic whose verdict orders them; null is the return."""


class Advantage(TreeBuild):
    """Rows with advantages within their group, for policy gradients (GRPO, arXiv:2402.03300)."""

    dataset: Literal["advantage"]
    baseline: Literal["group", "leave_one_out", "role", "batch", "none"] = "group"
    """What is taken off the return: the mean of the group, of the group's others, of the role, of the stage, or nothing."""
    normalise: Flag = True
    """Whether advantages are divided by the standard deviation."""
    credit: Literal["episode", "turn", "siblings"] = "episode"
    """Who gets the advantage: the whole episode, each turn for what came after it, or each turn against its siblings in the tree."""
    discount: Scheduled[Share] = Scheduled.constant(1.0)
    """How much less the reward of the next turn counts, for `credit: turn`."""
    channels: Literal["sum", "apart"] = "sum"
    """`sum`: weighted rewards are added up, then compared. `apart`: environment, tools and each critic are compared by themselves, and the
    weighted advantages are added up.
    """
    tool_reward: Scheduled[NonNegative] = Scheduled.constant(0.0)
    """Reward of a turn that used a tool without an error."""
    tool_turns: Scheduled[Count] = Scheduled.constant(10)
    """Most turns an episode that have it."""
    keep_groups: Scheduled[Share] = Scheduled.constant(1.0)
    """Share of groups that are kept, those with the widest spread of returns."""
    drop_equal: Flag = True
    """Whether groups in which every advantage is 0 are left out."""
    drop_truncated: Flag = False
    """Whether episodes that were cut short are compared but not trained on."""
    drop_repetitive: Flag = False
    """The same for episodes in which a run of 20 ids occurs more than 10 times."""
    draws: Literal["policy", "any"] = "policy"
    """`policy`: only turns that are plain draws of the policy train. `any`: turns that a search chose train too, without log-probabilities,
    which only `loss: reinforce` takes.
    """

    @model_validator(mode="after")
    def _siblings_alone(self) -> Self:
        if self.credit == "siblings" and self.baseline not in ("group", "leave_one_out"):
            raise trouble(
                "'credit: siblings' compares siblings", path=("baseline",), found=self.baseline, expected="group or leave_one_out"
            )
        return self


class WorldModel(TreeBuild):
    """The next observation as the target (early experience, arXiv:2510.08558): authored rows."""

    dataset: Literal["world_model"]
    failures: Flag = True
    """Whether observations of failed actions are kept."""


class SearchTrace(TreeBuild):
    """A search, written out as text before the action that it found (procedure cloning, arXiv:2205.10816): authored rows."""

    dataset: Literal["search_trace"]
    min_reward: Scheduled[Number] = Scheduled.constant(1.0)
    """Least return of the path that was found."""


class Relabel(TreeBuild):
    """Trajectories with the goals that they did reach, as a critic named them (LMA3, arXiv:2305.12487): authored rows."""

    dataset: Literal["relabel"]
    per_tree: Scheduled[Count] = Scheduled.constant(10)
    """Most goals a trajectory."""


class Verdicts(TreeBuild):
    """A critic's own turns, to train the critic."""

    dataset: Literal["verdicts"]
    agree: Literal["outcome", "all"] = "outcome"
    """Which verdicts: those that the outcome bears out, or all."""


class NewTasks(TreeBuild):
    """Tasks that a creator proposed in its episodes: makes tasks."""

    makes: ClassVar[ArtifactType | None] = "tasks"

    dataset: Literal["tasks"]
    draw: Literal["all", "uniform", "informative"] = "all"
    """Which proposals: all, a uniform draw, or a draw in proportion to max - min of the parent's returns (eva, arXiv:2411.00062)."""
    share: Scheduled[Share] = Scheduled.constant(1.0)
    """Share of the proposals that is drawn."""


BUILDERS: tuple[type[TreeBuild], ...] = (
    SelfImitation,
    Reflection,
    DirectRevision,
    OptimalOnly,
    Attempts,
    Preference,
    Advantage,
    WorldModel,
    SearchTrace,
    Relabel,
    Verdicts,
    NewTasks,
)
