"""Equal content, equal hash; other content, another hash."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentloop.trace.hash import canonical, content_hash, file_hash, folder_hash, hash_of_many, trees_hash
from agentloop.trace.store import TreeWriter, write_trees
from agentloop.trace.tree import Failure, Spent, Tree, Verdict

MakeTree = Callable[..., Tree]

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(value=json_values)
def test_json_hashes_alike_after_a_round_trip(value: object) -> None:
    again = json.loads(json.dumps(value))
    assert content_hash(again) == content_hash(value)
    if isinstance(value, dict):
        assert content_hash(dict(reversed(value.items()))) == content_hash(value)


def test_the_canonical_form_is_fixed() -> None:
    value = {"b": [1.0, 0.25, (True, None)], "a": "é", "seconds": 3, "deep": {"cached_tokens": 1, "c": 2}}
    assert canonical(value) == '{"a":"é","b":[1,0.25,[true,null]],"deep":{"c":2}}'
    assert content_hash({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"  # sha256 of "{}"
    with pytest.raises(TypeError, match="object has no canonical form"):
        content_hash({"a": object()})


def test_timings_and_cache_hits_are_not_content(make_tree: MakeTree) -> None:
    tree = make_tree("t0", (0, 1), seconds=0.5)
    other = make_tree("t0", (0, 1), seconds=2.5)
    told = {"cached_tokens": 99, "spent": Spent(cached=99)}
    other = dataclasses.replace(other, turns=tuple(dataclasses.replace(turn, **told) for turn in other.turns))
    assert tree != other
    assert content_hash(tree) == content_hash(other)
    first, second = (
        dataclasses.replace(tree, failures=(Failure("engine.crash", "gone", 2, None, trace),)) for trace in (None, "Traceback")
    )
    assert content_hash(first) == content_hash(second) != content_hash(tree)


def test_everything_else_is_content(make_tree: MakeTree) -> None:
    tree = make_tree("t0", (0,))
    turn = tree.turns[0]
    hashes = {content_hash(tree)}
    changes = {
        "completion_ids": (1, 2, 3, 4),
        "prompt_ids": (1,),
        "logprobs": (-0.1, -0.2, -0.3, -0.4000001),
        "text": "x",
        "action": None,
        "observation": None,
        "reward": 0.5,
        "success": False,
        "truncated": "turns",
        "finish": "length",
        "info": {"seconds": 1},
        "draw": dataclasses.replace(turn.draw, adapter="base"),
        "spent": Spent(requests=1, prompt=9),
    }
    for field, value in changes.items():
        hashes.add(content_hash(dataclasses.replace(tree, turns=(dataclasses.replace(turn, **{field: value}), *tree.turns[1:]))))
    hashes.add(content_hash(dataclasses.replace(tree, verdicts=(Verdict("outcome", "0.1", 1.0),))))
    hashes.add(content_hash(dataclasses.replace(tree, task_data={"seconds": 5})))
    hashes.add(content_hash(dataclasses.replace(tree, task_data={"seconds": 6})))
    assert len(hashes) == len(changes) + 4


def test_trees_hash_alike_whatever_their_layout(tmp_path: Path, make_tree: MakeTree) -> None:
    trees = [make_tree(f"t{number}", (0, 1)) for number in range(4)]
    backwards = write_trees(tmp_path / "backwards.parquet", reversed(trees))
    with TreeWriter(tmp_path / "fragments.parquet", shard_episodes=3) as writer:
        for sample in (1, 0):
            for number in (2, 0, 3, 1):
                writer.add(make_tree(f"t{number}", (sample,), seconds=float(number)))
        fragments = writer.finish()
    assert trees_hash(trees) == trees_hash(backwards) == trees_hash(fragments)
    assert trees_hash(trees[:3]) != trees_hash(trees)
    assert file_hash(backwards) != file_hash(fragments)


def test_order_counts_in_a_sequence() -> None:
    assert hash_of_many([1, 2]) != hash_of_many([2, 1])
    assert hash_of_many(iter([{"a": 1}])) == hash_of_many([{"a": 1.0}])


def test_a_folder_is_its_names_and_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "weights").write_bytes(b"abc")
        (tmp_path / name / "config.json").write_text("{}")
    same = folder_hash(tmp_path / "one")
    assert same == folder_hash(tmp_path / "two")
    assert folder_hash(tmp_path / "one", names=["config.json"]) != same
    (tmp_path / "two" / "sub" / "weights").write_bytes(b"abd")
    assert folder_hash(tmp_path / "two") != same
    assert folder_hash(tmp_path / "two", names=["config.json"]) == folder_hash(tmp_path / "one", names=["config.json"])
    (tmp_path / "one" / "sub" / "weights").rename(tmp_path / "one" / "sub" / "weight")
    assert folder_hash(tmp_path / "one") != same
    with pytest.raises(FileNotFoundError):
        folder_hash(tmp_path / "three")
