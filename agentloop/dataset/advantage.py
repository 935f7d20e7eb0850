"""Advantages: every sampled token with how much better than its peers the episode, the turn or the subtree was that it belongs to.

For policy gradients (GRPO, arXiv:2402.03300, and its kin). A row is a segment as it was sampled, with behaviour log-probabilities and
advantages at the masked ids. Whether won or lost, every episode that ended is compared; what broke, and the leaves that a search never went
on from, are no outcomes and are not. A group is the episodes of one tree in one seat.

A turn that several episodes share (a search) trains once, with the mean of their advantages. An importance ratio means something for plain
draws of the policy only, so turns that a search chose or de-duplicated, that were drawn with truncated probabilities or greedily, or that
somebody wrote, stay in the context and are not trained on; `draws: any` keeps those that were sampled, without log-probabilities, for a
loss that needs no ratio.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal

from agentloop.dataset.build_report import BuildReport
from agentloop.dataset.credit import Credit, returns_to_go, sibling_advantages, turn_advantages
from agentloop.dataset.groups import REWARD, TOOLS, Episode, Group, groups_of
from agentloop.dataset.relative import Against, advantages, spread, widest
from agentloop.dataset.row import Row
from agentloop.dataset.segment_row import segment_row
from agentloop.dataset.shaping import repeats_itself
from agentloop.errors import Mistake
from agentloop.trace.segment import TRAINS
from agentloop.trace.tree import Tree, Turn


@dataclass(frozen=True, slots=True)
class Settings:
    """What the recipe's `build` stage may say of `dataset: advantage`.

    Attributes:
        baseline: With what an episode is compared: its group, its group without itself, all episodes of its role or of the stage; `none`
            takes the returns as they are.
        normalise: Whether advantages are divided by the standard deviation of what they are compared with.
        credit: Who gets the advantage: the whole episode, each turn for what came after it, or each turn against its siblings in the tree.
        discount: A turn's discount, for `credit: turn`.
        verdicts: Weights of critics; a verdict's value is a reward of the turn that it judges, and one without a value none.
        channels: `sum` adds the weighted rewards up before they are compared. `apart` compares environment, tools and each critic by
            themselves and adds the weighted advantages up, so that a wide spread in one does not drown the others (as SLIM's critics).
        tool_reward: Reward of a turn that used a tool.
        tool_turns: Most turns an episode that have it.
        keep_groups: Share of the groups that is kept, those with the widest spread of returns.
        drop_equal: Whether groups in which every advantage is 0 are left out.
        drop_truncated: Whether episodes that were cut short do not train; they are compared all the same.
        drop_repetitive: The same for episodes that repeat themselves.
        draws: Whether turns without an importance ratio are left out (`policy`), or train without log-probabilities (`any`).
        role: Only turns that this role played; None means every role.
        seat: Only turns of this seat; None means every seat.
    """

    baseline: Literal["group", "leave_one_out", "role", "batch", "none"] = "group"
    normalise: bool = True
    credit: Credit = "episode"
    discount: float = 1.0
    verdicts: Mapping[str, float] = field(default_factory=dict)
    channels: Literal["sum", "apart"] = "sum"
    tool_reward: float = 0.0
    tool_turns: int = 10
    keep_groups: float = 1.0
    drop_equal: bool = True
    drop_truncated: bool = False
    drop_repetitive: bool = False
    draws: Literal["policy", "any"] = "policy"
    role: str | None = None
    seat: str | None = None

    def __post_init__(self) -> None:
        if self.credit == "siblings" and self.baseline not in ("group", "leave_one_out"):
            raise Mistake("'credit: siblings' compares siblings", found=f"baseline {self.baseline}", expected="group or leave_one_out")

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each channel."""
        return {REWARD: 1.0} | ({TOOLS: self.tool_reward} if self.tool_reward else {}) | dict(self.verdicts)

    @property
    def against(self) -> Against:
        """What is taken off within the episodes that are compared."""
        return "leave_one_out" if self.baseline == "leave_one_out" else "group"


def build(
    trees: Iterable[Tree],
    settings: Settings = Settings(),
    *,
    report: BuildReport | None = None,
    stage: str = "",
    iteration: int = 0,
) -> Iterator[Row]:
    """Rows with advantages, in the order of the trees; equal trees give equal rows. Trees must be whole.

    Memory holds one tree at a time where groups are compared by themselves and all are kept, else all trees.
    """
    told = report if report is not None else BuildReport()
    groups = (
        group
        for tree in trees
        for group in groups_of(tree, settings.weights, tool_turns=settings.tool_turns, role=settings.role, seat=settings.seat)
    )
    for compared in _together(groups, settings, told):
        told.group_means += [fmean(group.totals) for group in compared]
        for group, found in zip(compared, _advantages(compared, settings, told), strict=True):
            if settings.drop_equal and not any(any(values) for values in found.values()):
                told.left_out["groups without variance"] += 1
                continue
            means = {turn: fmean(values) for turn, values in found.items()}
            yield from _rows(group, means, settings, told, stage, iteration)


def _together(groups: Iterable[Group], settings: Settings, report: BuildReport) -> Iterator[list[Group]]:
    """Groups that are compared with each other, together: each alone, or those of a role, or all; narrow ones are left out and counted."""
    alone = settings.baseline not in ("role", "batch")
    if alone and settings.keep_groups >= 1.0:
        yield from ([group] for group in groups)
        return
    everything = list(groups)
    kept = [everything[at] for at in widest([spread(group.totals) for group in everything], settings.keep_groups)]
    report.left_out["groups of narrow spread"] += len(everything) - len(kept)
    if alone:
        yield from ([group] for group in kept)
        return
    by_role: dict[str, list[Group]] = {}
    for group in kept:
        by_role.setdefault(group.role if settings.baseline == "role" else "", []).append(group)
    yield from by_role.values()


def _advantages(groups: Sequence[Group], settings: Settings, report: BuildReport) -> list[dict[str, list[float]]]:
    """For each group the advantages of each turn, one an episode that it is part of."""
    found: list[dict[str, list[float]]] = [{} for _ in groups]
    places = [(place, episode) for place, group in enumerate(groups) for episode in group.episodes]
    totals = [[0.0] * len(episode.turns) for _, episode in places]
    for name, weight, rewards in _channels([episode for _, episode in places], settings):
        compared = _against_siblings(groups[0], rewards, settings) if settings.credit == "siblings" else _against_peers(rewards, settings)
        for total, values in zip(totals, compared, strict=True):
            report.channels[name] = report.channels.get(name, 0.0) + sum(abs(weight * value) for value in values)
            for at, value in enumerate(values):
                total[at] += weight * value
    for (place, episode), total in zip(places, totals, strict=True):
        for turn, value in zip(episode.turns, total, strict=True):
            found[place].setdefault(turn.id, []).append(value)
    return found


def _channels(episodes: Sequence[Episode], settings: Settings) -> Iterator[tuple[str, float, list[list[float]]]]:
    """What is compared by itself: name, weight and the rewards of each episode's turns, of each channel or of their weighted sum."""
    if settings.channels == "apart":
        for name, weight in settings.weights.items():
            yield name, weight, [list(episode.rewards[name]) for episode in episodes]
        return
    weights = settings.weights
    summed = [
        [sum(weight * episode.rewards[name][at] for name, weight in weights.items()) for at in range(len(episode.turns))]
        for episode in episodes
    ]
    yield "sum", 1.0, summed


def _against_peers(rewards: Sequence[Sequence[float]], settings: Settings) -> list[list[float]]:
    """The advantage of each turn of each episode over the other episodes."""
    if settings.baseline == "none":
        turns = [returns_to_go(of_episode, settings.discount if settings.credit == "turn" else 1.0) for of_episode in rewards]
        return turns if settings.credit == "turn" else [[values[0]] * len(values) for values in turns]
    if settings.credit == "turn":
        return turn_advantages(rewards, discount=settings.discount, against=settings.against, normalise=settings.normalise)
    compared = advantages([sum(of_episode) for of_episode in rewards], against=settings.against, normalise=settings.normalise)
    return [[value] * len(of_episode) for value, of_episode in zip(compared, rewards, strict=True)]


def _against_siblings(group: Group, rewards: Sequence[Sequence[float]], settings: Settings) -> list[list[float]]:
    """The same over the siblings of each turn in the tree."""
    parents = {turn.id: turn.parent for turn in group.tree.turns}
    ends = {episode.leaf.id: sum(of_episode) for episode, of_episode in zip(group.episodes, rewards, strict=True)}
    compared = sibling_advantages(parents, ends, against=settings.against, normalise=settings.normalise)
    return [[compared[turn.id] for turn in episode.turns] for episode in group.episodes]


def _rows(group: Group, means: Mapping[str, float], settings: Settings, report: BuildReport, stage: str, iteration: int) -> Iterator[Row]:
    """A row for each segment of each episode, on the turns that no earlier one trained."""
    tree, done = group.tree, set[str]()
    verdicts = tuple(settings.verdicts)
    for episode in group.episodes:
        if (reason := _unfit(episode, settings)) is not None:
            report.left_out[reason] += 1
            continue
        own = {turn.id for turn in episode.turns}
        for segment in tree.segments(episode.leaf.id, seat=group.seat):
            trained = []
            for turn in segment:
                if turn.id in own and turn.id not in done and TRAINS[segment[0].fresh or "start"] and turn.completion_ids:
                    done.add(turn.id)
                    if _fits(turn, settings):
                        trained.append(turn.id)
                    else:
                        report.left_out["turns that are no plain draws"] += 1
            if trained:
                last = max(at for at, turn in enumerate(segment) if turn.id in trained)
                row = segment_row(
                    tree,
                    segment[: last + 1],
                    reward=episode.total,
                    stage=stage,
                    iteration=iteration,
                    verdicts=verdicts,
                    trained=trained,
                )
                yield replace(row, advantages=_of_ids(segment[: last + 1], {turn: means[turn] for turn in trained}))


def _unfit(episode: Episode, settings: Settings) -> str | None:
    """Why an episode does not train; None where it does."""
    if settings.drop_truncated and episode.leaf.truncated is not None:
        return "episodes that were cut short"
    if settings.drop_repetitive and repeats_itself([token for turn in episode.turns for token in turn.completion_ids]):
        return "episodes that repeat themselves"
    return None


def _fits(turn: Turn, settings: Settings) -> bool:
    """Whether a turn may train: it was sampled, and drawn so that the loss can know how likely it was."""
    if turn.logprobs is None:
        return False
    return settings.draws == "any" or (turn.draw.has_ratio and turn.draw.temperature > 0)


def _of_ids(segment: Sequence[Turn], found: Mapping[str, float]) -> tuple[float, ...]:
    """The advantage of each id of a segment, 0 where nothing trains; shape (T,)."""
    values: list[float] = []
    for turn in segment:
        values += [0.0] * len(turn.prompt_ids) + [found.get(turn.id, 0.0)] * len(turn.completion_ids)
    return tuple(values)
