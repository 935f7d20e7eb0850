"""Trees come back as they were written, whoever finished first and however often the writer was killed."""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentloop.errors import RunFailed
from agentloop.trace import schema, store
from agentloop.trace.hash import trees_hash
from agentloop.trace.store import TreeWriter, UnreadableTrace, count_trees, read_columns, read_trees, write_trees
from agentloop.trace.tree import Draw, Failure, Spent, Tree, Turn, Verdict

MakeTree = Callable[..., Tree]

words = st.text(st.characters(codec="utf-8"), max_size=8)
numbers = st.floats(allow_nan=False)
ids = st.lists(st.integers(0, 2**31 - 1), max_size=4).map(tuple)
json_objects = st.dictionaries(words, st.one_of(st.none(), st.booleans(), st.integers(), numbers, words, st.lists(words)), max_size=3)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    turns: list[Turn] = []
    for number in range(draw(st.integers(0, 3))):
        completion = draw(ids)
        parent = draw(st.sampled_from([None, *(turn.id for turn in turns)]))
        extends = draw(st.sampled_from([None, parent]))
        turns.append(
            Turn(
                id=f"0.{number}",
                parent=parent,
                extends=extends,
                fresh=None if extends else draw(st.sampled_from(["start", "template", "window", "summary", "critic"])),
                prompt_ids=draw(ids),
                completion_ids=completion,
                logprobs=draw(st.one_of(st.none(), st.lists(numbers, min_size=len(completion), max_size=len(completion)).map(tuple))),
                text=draw(words),
                draw=Draw(draw(words), draw(numbers), draw(numbers), 3, "forced", draw(st.one_of(st.none(), st.integers(0, 2**63 - 1))), 2),
                action=draw(st.one_of(st.none(), words)),
                observation=draw(st.one_of(st.none(), words)),
                reward=draw(numbers),
                done=draw(st.booleans()),
                success=draw(st.sampled_from([None, True, False])),
                truncated=draw(st.sampled_from([None, "turns", "context"])),
                finish=draw(st.sampled_from(["stop", "length"])),
                seat=draw(words),
                role=draw(words),
                info=draw(json_objects),
                seconds=(draw(numbers), draw(numbers)),
                cached_tokens=draw(st.integers(0, 1000)),
                spent=Spent(*draw(st.tuples(*[st.integers(0, 2**40)] * 4))),
            )
        )
    verdicts = (Verdict("outcome", "0.0", draw(st.one_of(st.none(), numbers)), draw(st.one_of(st.none(), words)), ("0.0",), "judge"),)
    failures = (Failure("environment.step.timeout", draw(words), 1, None, draw(st.one_of(st.none(), words))),)
    return Tree(
        id="000/trees/x",
        task=draw(words),
        environment=draw(words),
        split="dev",
        turns=tuple(turns),
        verdicts=draw(st.sampled_from([(), verdicts])),
        failures=draw(st.sampled_from([(), failures])),
        samples=(0, 1),
        system_prompt=draw(words),
        first_observation=draw(words),
        task_data=draw(json_objects),
        seed=draw(st.integers(0, 2**63 - 1)),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=trees())
def test_a_tree_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, tree: Tree) -> None:
    path = write_trees(tmp_path_factory.mktemp("trees") / "x.parquet", [tree])
    assert list(read_trees(path)) == [tree]


def test_every_field_is_stored() -> None:
    """A field that is added to a turn, a verdict, a failure, a draw or a tree must be added to the schema."""
    turn = {field.name for field in dataclasses.fields(Turn)} - {"draw", "seconds"}
    draw = {field.name for field in dataclasses.fields(Draw)} - {"kind", "seed"}
    stored = {field.name for field in schema.TURN}
    assert stored == turn | draw | {"draw_kind", "draw_seed", "generation_seconds", "environment_seconds"}
    assert {field.name for field in schema.VERDICT} == {field.name for field in dataclasses.fields(Verdict)}
    assert {field.name for field in schema.FAILURE} == {field.name for field in dataclasses.fields(Failure)}
    assert set(schema.TREES.names) == {field.name for field in dataclasses.fields(Tree) if field.init}


def test_fragments_become_trees_whoever_finished_first(tmp_path: Path, make_tree: MakeTree) -> None:
    fragments = [make_tree(f"t{task}", (sample,)) for task in range(5) for sample in range(4)]
    hashes = set()
    for number, shard in enumerate((1, 3, 100)):
        random.Random(number).shuffle(fragments)
        with TreeWriter(tmp_path / f"{number}.parquet", shard_episodes=shard) as writer:
            for fragment in fragments:
                writer.add(fragment)
            assert list(writer.fragments()) == fragments
            path = writer.finish(order=[f"000/trees/t{task}" for task in (3, 1, 9)])
        read = list(read_trees(path))
        assert [tree.task for tree in read] == ["t3", "t1", "t0", "t2", "t4"]
        assert read[0] == make_tree("t3", (0, 1, 2, 3))
        hashes.add(trees_hash(path))
        assert count_trees(path) == 5
        assert [name.name for name in tmp_path.iterdir() if name.name.startswith(f"{number}")] == [path.name]
    assert len(hashes) == 1


def test_what_was_added_is_there_after_reopening(tmp_path: Path, make_tree: MakeTree) -> None:
    path = tmp_path / "trees" / "x.parquet"
    first = TreeWriter(path, shard_episodes=2)
    for sample in range(5):
        first.add(make_tree("t0", (sample,)))
    second = TreeWriter(path, shard_episodes=2)  # the first was killed: never closed
    assert second.finished == {("000/trees/t0", sample) for sample in range(5)}
    with pytest.raises(ValueError, match="sample 3 of tree '000/trees/t0' is there already"):
        second.add(make_tree("t0", (3,)))
    second.add(make_tree("t0", (5,)))
    assert not path.exists()
    second.finish()
    assert list(read_trees(path)) == [make_tree("t0", tuple(range(6)))]
    third = TreeWriter(path)
    assert third.finished == second.finished
    assert third.finish() == path
    with pytest.raises(ValueError, match="is finished"):
        third.add(make_tree("t1"))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_killed_at_any_operation_nothing_is_lost_or_doubled(
    tmp_path_factory: pytest.TempPathFactory, make_tree: MakeTree, data: st.DataObject
) -> None:
    """From some file operation on, every one fails, as if the process were gone; a new writer takes up what is there."""
    path = tmp_path_factory.mktemp("trees") / "x.parquet"
    fragments = [make_tree(f"t{task}", (sample,)) for task in range(3) for sample in range(3)]
    added: set[tuple[str, int]] = set()
    for _ in range(20):
        countdown = data.draw(st.integers(1, 25))
        with pytest.MonkeyPatch.context() as patch:
            killer = Killer(countdown)
            for owner, name in ((Path, "replace"), (Path, "unlink"), (os, "fsync"), (store.shutil, "rmtree"), (store.AppendLog, "append")):
                killer.guard(patch, owner, name)
            try:
                writer = TreeWriter(path, shard_episodes=2)
                assert added <= writer.finished
                for fragment in fragments:
                    key = (fragment.id, fragment.samples[0])
                    if key not in writer.finished:
                        writer.add(fragment)
                        added.add(key)
                writer.finish()
                break
            except Killed:
                continue
    TreeWriter(path).finish()
    with TreeWriter(path) as writer:
        assert added <= writer.finished
    assert os.listdir(path.parent) == [path.name]
    read = list(read_trees(path))
    assert [(tree.id, sample) for tree in read for sample in tree.samples] == sorted(writer.finished)
    for tree in read:
        assert tree == make_tree(tree.task, tree.samples)


class Killed(BaseException):
    """The process is gone."""


class Killer:
    """Lets a number of guarded operations happen; from then on every one raises `Killed`."""

    def __init__(self, countdown: int) -> None:
        self.countdown = countdown

    def guard(self, patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        operation = getattr(owner, name)

        def guarded(*args: object, **kwargs: object) -> object:
            self.countdown -= 1
            if self.countdown < 0:
                raise Killed
            return operation(*args, **kwargs)

        patch.setattr(owner, name, guarded)


SCRIPT = textwrap.dedent(
    """
    import sys
    from agentloop.trace.store import TreeWriter
    from agentloop.trace.tree import Draw, Tree, Turn

    writer = TreeWriter(sys.argv[1], shard_episodes=7)
    for number in range(4000):
        task, sample = divmod(number, 4)
        if (f"t{task}", sample) in writer.finished:
            continue
        turn = Turn(f"{sample}.0", None, None, (1, 2, number), (3,) * 50, (-0.5,) * 50, "x", Draw("base"), fresh="start")
        writer.add(Tree(f"t{task}", f"t{task}", "e", "train", turns=(turn,), samples=(sample,)))
        print(number, flush=True)
    """
)


def test_sigkill_loses_nothing_that_was_added(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    told: list[int] = []
    for stop in (40, 3):
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(stop):
            told.append(int(process.stdout.readline()))
        process.send_signal(signal.SIGKILL)
        told += [int(line) for line in process.stdout.read().split()]
        process.wait(timeout=30)
    writer = TreeWriter(path)
    assert len(told) == len(set(told)) >= 43
    assert {(f"t{number // 4}", number % 4) for number in told} <= writer.finished
    assert len(writer.finished) <= len(told) + 2  # one a kill that was added and not told
    writer.finish()
    assert [(tree.id, sample) for tree in read_trees(path) for sample in tree.samples] == sorted(writer.finished)


def test_memory_does_not_grow_with_the_run(tmp_path: Path, make_tree: MakeTree) -> None:
    fragment = make_tree("t0", (0,), tokens=300)  # 5 kB as Arrow

    def peaks(path: Path, episodes: int) -> tuple[int, int]:
        """Most bytes of Python objects, and of Arrow arrays, while so many episodes are written and read."""
        before, arrow = pa.total_allocated_bytes(), 0
        tracemalloc.start()
        with TreeWriter(path, shard_episodes=8) as writer:
            for number in range(episodes):
                writer.add(dataclasses.replace(fragment, id=f"t{number:05d}"))
                arrow = max(arrow, pa.total_allocated_bytes() - before)
            writer.finish()
        for tree in read_trees(path):
            assert len(tree.turns) == 2
            arrow = max(arrow, pa.total_allocated_bytes() - before)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest, arrow

    python_few, _ = peaks(tmp_path / "few.parquet", 60)
    python_many, arrow_many = peaks(tmp_path / "many.parquet", 300)
    assert python_many - python_few < 240 * 1000  # the names of 240 episodes
    assert arrow_many < 300 * 5000 / 2


def test_columns_can_be_read_alone(tmp_path: Path, make_tree: MakeTree) -> None:
    path = write_trees(tmp_path / "x.parquet", [make_tree("t0", (0, 1)), make_tree("t1", ())])
    rows = list(read_columns(path, ("task", "turns.reward", "samples", "failures.kind")))
    assert rows[0] == {"task": "t0", "samples": [0, 1], "turns": [{"reward": reward} for reward in (0.0, 1.0, 0.0, 1.0)], "failures": []}
    assert rows[1]["turns"] == []
    with pytest.raises(UnreadableTrace, match=r"no column 'turns\.rewards'"):
        list(read_columns(path, ("turns.rewards",)))


def test_unreadable_files_are_named(tmp_path: Path, make_tree: MakeTree) -> None:
    path = tmp_path / "x.parquet"
    with pytest.raises(UnreadableTrace, match=r"x\.parquet does not exist"):
        list(read_trees(path))
    path.write_bytes(b"not parquet")
    with pytest.raises(UnreadableTrace, match=r"x\.parquet is damaged"):
        list(read_trees(path))
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(UnreadableTrace, match="not one of trees"):
        list(read_trees(path))
    newer = schema.TREES.with_metadata({schema.VERSION_KEY: b"99"})
    pq.write_table(newer.empty_table(), path)
    with pytest.raises(UnreadableTrace, match=f"trace version 99; this agentloop reads versions up to {schema.VERSION}"):
        list(read_trees(path))
    write_trees(path, [make_tree(f"t{number}", (0, 1, 2), tokens=50) for number in range(20)])
    content = bytearray(path.read_bytes())
    content[100:1200] = os.urandom(1100)
    path.write_bytes(content)
    with pytest.raises(UnreadableTrace, match=r"x\.parquet is damaged"):
        list(read_trees(path))


def as_version_1(path: Path) -> None:
    """Take from a file what version 2 added, as if it had been written before."""
    table = pq.read_table(path)
    fields = [field for field in schema.TURN if field.name != "given"]
    older = schema.TREES.set(schema.TREES.get_field_index("turns"), pa.field("turns", pa.list_(pa.struct(fields))))
    rows = [row | {"turns": [{k: v for k, v in turn.items() if k != "given"} for turn in row["turns"]]} for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=older.with_metadata({schema.VERSION_KEY: b"1"})), path)


def test_trees_of_version_1_are_read_and_nothing_in_them_was_taken_over(tmp_path: Path, make_tree: MakeTree) -> None:
    path = write_trees(tmp_path / "x.parquet", [make_tree("t0", (0, 1))])
    as_version_1(path)
    assert list(read_trees(path)) == [make_tree("t0", (0, 1))]


def test_a_stage_that_an_earlier_version_began_is_finished(tmp_path: Path, make_tree: MakeTree) -> None:
    with TreeWriter(tmp_path / "x.parquet", shard_episodes=1) as writer:
        writer.add(make_tree("t0", (0,)))
    as_version_1(writer.folder / "shard-000000.parquet")
    with TreeWriter(tmp_path / "x.parquet", shard_episodes=1) as writer:
        writer.add(make_tree("t1", (0,)))
        writer.finish()
    assert list(read_trees(tmp_path / "x.parquet")) == [make_tree("t0", (0,)), make_tree("t1", (0,))]


def test_turns_that_were_taken_over_stay_so_on_disk(tmp_path: Path, make_tree: MakeTree) -> None:
    tree = make_tree("t0", (0,))
    taken = dataclasses.replace(tree, turns=(dataclasses.replace(tree.turns[0], given=True), *tree.turns[1:]))
    assert list(read_trees(write_trees(tmp_path / "x.parquet", [taken]))) == [taken]


def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path, make_tree: MakeTree, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.parquet"
    writer = TreeWriter(path, shard_episodes=3)
    writer.add(make_tree("t0", (0,)))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(store.AppendLog, "append", full)
        with pytest.raises(RunFailed, match=r"no space left on the disk for .*x\.parquet; what was finished is kept"):
            writer.add(make_tree("t0", (1,)))
    writer.add(make_tree("t0", (1,)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunFailed, match="no space left"):
            writer.finish()
    assert not path.exists()
    again = TreeWriter(path)
    assert again.finished == {("000/trees/t0", 0), ("000/trees/t0", 1)}
    again.finish()
    assert list(read_trees(path)) == [make_tree("t0", (0, 1))]


def test_an_artifact_appears_whole_or_not_at_all(tmp_path: Path, make_tree: MakeTree) -> None:
    path = tmp_path / "x.parquet"

    def broken() -> object:
        yield make_tree("t0")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_trees(path, broken())
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_cannot_be_stored_names_its_tree(tmp_path: Path, make_tree: MakeTree) -> None:
    with TreeWriter(tmp_path / "x.parquet") as writer, pytest.raises(ValueError, match=r"000/trees/t0.*cannot be stored"):
        writer.add(dataclasses.replace(make_tree("t0"), seed=2**70))
    assert writer.finished == set()
