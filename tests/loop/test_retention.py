"""Old adapters leave the disk, needed ones never, and the journal says which."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.cli.main import run as agentloop
from agentloop.engine.adapter import CONFIG_NAME, role_of
from agentloop.engine.base import BASE
from agentloop.errors import RunFailed
from agentloop.loop import retention
from agentloop.loop.lineage import Lineage
from agentloop.recipe import Recipe
from agentloop.report.summary import summarise
from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Entry, Output

ROLES = ("actor", "critic")


def recipe(keep: int | str = 1, *more: dict[str, Any], **settings: Any) -> Recipe:
    roles = {"critic": {"adapter": True}}
    stages = [{"sample": {}}, *more]
    return Recipe.model_validate(
        {"name": "r", "model": "tiny", "environment": "x", "roles": roles, "stages": stages, "lineage": {"keep": keep} | settings}
    )


class World:
    """A run's directory in which adapters are made and judged without training any."""

    def __init__(self, path: Path, keep: int | str = 1, *more: dict[str, Any], **settings: Any) -> None:
        self.directory = RunDirectory(path)
        self.lineage = Lineage()
        self.recipe = recipe(keep, *more, **settings)
        self.made: dict[str, Path] = {}

    def finish(self, entry: Entry) -> None:
        self.directory.journal.append(entry)
        self.lineage.apply(entry, self.directory.path)
        retention.delete_old(self.recipe, self.lineage, self.directory)

    def train(self, role: str = "actor") -> str:
        number = len(self.made)
        path = self.directory.artifact(f"{number:03d}", "adapter", role)
        path.mkdir(parents=True)
        (path / CONFIG_NAME).write_text("{}")
        name = f"{role}-{number:03d}-hash"
        output = Output("adapter", self.directory.relative(path), "hash", about={"name": name, "role": role})
        self.made[name] = path
        self.finish(Entry("finished", f"{number:03d}/train", outputs={role: output}))
        return name

    def gate(self, role: str, adopt: bool) -> None:
        best = self.lineage.playing(role) if adopt else self.lineage.best_of(role)
        number = len(self.directory.journal.entries)
        self.finish(Entry("finished", f"{number:03d}/gate", about={"gate": {"role": role, "best": best, "value": 0.5}}))

    def on_disk(self) -> list[str]:
        return [name for name, path in self.made.items() if path.exists()]


EVENTS = st.lists(st.tuples(st.sampled_from(["train", "adopt", "refuse"]), st.sampled_from(ROLES)), max_size=24)


@settings(deadline=None, max_examples=60)
@given(events=EVENTS, keep=st.integers(0, 3))
def test_what_is_needed_stays_and_of_the_rest_what_was_needed_last(
    events: list[tuple[str, str]], keep: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = World(tmp_path_factory.mktemp("run"), keep)
    left: list[str] = []
    for event, role in events:
        world.train(role) if event == "train" else world.gate(role, adopt=event == "adopt")
        there = world.on_disk()
        needed = {name for role in ROLES for name in (world.lineage.playing(role), world.lineage.best_of(role))} - {BASE}
        assert needed <= set(there)
        left += [name for name in world.made if name not in needed and name not in left]
        for one in ROLES:
            mine = [name for name in left if role_of(name) == one]
            assert set(there) & set(mine) == set(mine[max(0, len(mine) - keep) :])
        # A process that begins here knows the same from the journal alone.
        again = RunDirectory(world.directory.path)
        assert retention.deleted(again) == set(world.made) - set(there)
        retention.resume(Lineage.replay(again.journal.finished_entries(), again.path), again)
        assert retention.counted(world.lineage, again) == f"{len(there)} on disk, {len(world.made) - len(there)} deleted"


def test_a_version_is_deleted_one_version_after_it_was_superseded(tmp_path: Path) -> None:
    world = World(tmp_path)
    first = world.train()
    world.gate("actor", adopt=True)
    second = world.train()
    assert world.on_disk() == [first, second], "the first is still the best"
    world.gate("actor", adopt=True)
    assert world.on_disk() == [first, second], "superseded, and kept for one version"
    third = world.train()
    world.gate("actor", adopt=True)
    assert world.on_disk() == [second, third]


def test_the_best_of_before_outlasts_a_candidate_that_was_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    best = world.train()
    world.gate("actor", adopt=True)
    world.train()
    world.gate("actor", adopt=False)
    latest = world.train()
    world.gate("actor", adopt=True)
    assert world.on_disk() == [best, latest]


@pytest.mark.parametrize(
    ("keep", "more", "settings"),
    [
        ("all", (), {}),
        (0, (), {"archive": {}}),
        (0, ({"train": {"id": "policy", "from": "rows"}}, {"evaluate": {"id": "old", "from": "policy@previous"}}), {}),
    ],
    ids=["keep all", "an archive", "read by name"],
)
def test_where_any_may_be_asked_for_none_is_deleted(
    tmp_path: Path, keep: int | str, more: tuple[dict[str, Any], ...], settings: dict[str, Any]
) -> None:
    world = World(tmp_path, keep, *more, **settings)
    names = [world.train() for _ in range(4)]
    assert world.on_disk() == names


def test_a_deletion_that_a_kill_cut_short_is_finished(tmp_path: Path) -> None:
    world = World(tmp_path, "all")
    names = [world.train() for _ in range(3)]
    path = world.directory.relative(world.made[names[0]])
    world.directory.journal.append(Entry("deleted", "000/train", about={"adapter": names[0], "path": path}))
    retention.resume(world.lineage, world.directory)
    assert world.on_disk() == names[1:]


def test_an_adapter_that_is_needed_and_gone_stops_the_run_before_it_begins(tmp_path: Path) -> None:
    world = World(tmp_path)
    name = world.train()
    shutil.rmtree(world.made[name])
    with pytest.raises(RunFailed, match=rf"adapter '{name}' is not in .*/iterations/000/adapters/actor any more"):
        retention.resume(world.lineage, world.directory)


def test_a_run_deletes_what_its_gates_refused_and_goes_on_as_if_nothing_were_missing(
    toy_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    path = toy_recipe(("keep: best}", "keep: best, margin: 2}"), ("seed: 3\n", "seed: 3\nlineage: {keep: 0}\n"))
    cut = path.read_text()
    path.write_text(cut[: cut.index("final:")])
    command = ["run", str(path), "--out", str(out), "--quiet"]
    assert agentloop(command) == 0
    assert [folder.name for folder in sorted(out.glob("iterations/*/adapters/*"))] == []
    directory = RunDirectory(out)
    deletions = [(entry.stage, entry.about["path"]) for entry in directory.journal.entries if entry.event == "deleted"]
    assert deletions == [(f"{label}/policy", f"iterations/{label}/adapters/actor") for label in ("000", "001")]

    path.write_text(cut)  # `final` has yet to run, with the bare base that the gates went back to
    assert agentloop(command) == 0
    summary = summarise(RunDirectory(out))
    assert (summary.state, summary.about["adapters"]) == ("finished", "0 on disk, 2 deleted")
    assert {line.made for line in summary.stages if line.stage.endswith("policy")} == {"adapter, deleted since"}
    assert "adapter, deleted since" in (out / "report.html").read_text()
