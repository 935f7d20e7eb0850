"""The plan of a run: order, keys, what each stage reads at each iteration, and which adapter plays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentloop.recipe import Plan, load, plan

Planner = Callable[[str], Plan]


@pytest.fixture
def planned(tmp_path: Path) -> Planner:
    """The plan of a recipe whose stages are given."""

    def make(text: str) -> Plan:
        path = tmp_path / "r.yaml"
        path.write_text("name: r\nmodel: tiny\nenvironment: textcraft\n" + text)
        return plan(load(path, allow_unavailable=True))

    return make


LINE = """\
iterations: 2
stages:
  - sample: {id: trees}
  - build: {id: rows, from: [trees, trees@previous], dataset: self_imitation}
  - train: {from: rows@all}
  - evaluate: {id: dev}
  - gate: {from: dev}
final:
  - build: {id: everything, from: trees@all, dataset: self_imitation}
  - train: {id: last, from: everything}
  - evaluate: {id: test, split: test}
"""


def reads(plan: Plan) -> dict[str, list[tuple[str, ...]]]:
    return {entry.key: [given.keys for given in entry.inputs] for entry in plan}


def test_stages_come_in_order_at_every_iteration(planned: Planner) -> None:
    iteration = ["trees", "rows", "train", "dev", "gate"]
    expected = [f"{label}/{name}" for label in ("000", "001") for name in iteration]
    assert [entry.key for entry in planned(LINE)] == [*expected, "final/everything", "final/last", "final/test"]


def test_what_each_stage_reads(planned: Planner) -> None:
    found = reads(planned(LINE))
    assert found["000/rows"] == [("000/trees",), ()]
    assert found["001/rows"] == [("001/trees",), ("000/trees",)]
    assert found["001/train"] == [("000/rows", "001/rows")]
    assert found["001/gate"] == [("001/dev",)]
    assert found["final/everything"] == [("000/trees", "001/trees")]


def test_which_adapter_plays(planned: Planner) -> None:
    adapters = {entry.key: entry.adapters for entry in planned(LINE)}
    assert adapters["000/trees"] == {"actor": "start"}
    assert adapters["000/dev"] == {"actor": "000/train"}
    assert adapters["001/trees"] == {"actor": "start"}
    assert adapters["final/test"] == {"actor": "final/last"}


def test_the_adapters_of_whoever_values_turns_play_too(planned: Planner) -> None:
    text = """\
roles: {critic: {}, bare: {adapter: false}}
stages:
  - sample: {id: valued, method: mcts, critic: critic}
  - sample: {id: rolled, method: mcts, rollout: critic}
  - sample: {id: plain, method: beam, critic: bare}
"""
    adapters = {entry.stage.id: entry.adapters for entry in planned(text)}
    both = {"actor": "start", "critic": "start"}
    assert adapters == {"valued": both, "rolled": both, "plain": {"actor": "start"}}


def test_types_of_what_is_made(planned: Planner) -> None:
    outputs = {entry.stage.id: entry.outputs for entry in planned(LINE) if entry.iteration == 0}
    assert outputs == {
        "trees": {"trees": "trees"},
        "rows": {"rows": "rows"},
        "train": {"train": "adapter"},
        "dev": {"dev": "measurement"},
        "gate": {},
    }


def test_nothing_to_read_in_the_first_iteration(planned: Planner) -> None:
    text = LINE.replace("rows@all", "rows@previous")
    empty = {entry.key: entry.empty for entry in planned(text)}
    assert empty["000/train"] and not empty["001/train"]
    assert {entry.key: entry.adapters for entry in planned(text)}["000/dev"] == {"actor": "start"}


def test_repeat_counts_its_own_rounds(planned: Planner) -> None:
    text = """\
iterations: 2
stages:
  - sample: {id: trees}
  - repeat:
      id: inner
      times: 2
      stages:
        - build: {id: rows, from: trees, dataset: self_imitation}
        - train: {from: [rows, rows@previous]}
  - build: {id: blend, mix: {rows: 0.5, rows@all: 0.5}}
"""
    found = reads(planned(text))
    assert list(found)[:6] == ["000/trees", "000.00/rows", "000.00/train", "000.01/rows", "000.01/train", "000/blend"]
    assert found["000.01/rows"] == [("000/trees",)]
    assert found["000.00/train"] == [("000.00/rows",), ()]
    assert found["001.00/train"] == [("001.00/rows",), ()]
    assert found["001.01/train"] == [("001.01/rows",), ("001.00/rows",)]
    assert found["001/blend"] == [("001.01/rows",), ("000.00/rows", "000.01/rows", "001.00/rows", "001.01/rows")]


def test_conditions_are_marked(planned: Planner) -> None:
    text = """\
stages:
  - sample: {id: trees}
  - evaluate: {id: before}
  - build: {id: rows, from: trees, dataset: self_imitation, when: {metric: success, below: 0.9}}
  - repeat: {until: {metric: success, from: dev, above: 0.9}, times: 2, stages: [{train: {from: rows}}, {evaluate: {id: dev}}]}
"""
    conditional = {entry.key: entry.conditional for entry in planned(text)}
    assert conditional == {
        "000/trees": False,
        "000/before": False,
        "000/rows": True,
        "000.00/train": False,
        "000.00/dev": False,
        "000.01/train": True,
        "000.01/dev": True,
    }


def test_keys_are_unique(planned: Planner) -> None:
    keys = [entry.key for entry in planned(LINE)]
    assert len(set(keys)) == len(keys)


def test_it_is_shown_short(planned: Planner) -> None:
    shown = str(planned(LINE.replace("iterations: 2", "iterations: 30")))
    assert shown.splitlines() == [
        "iterations 000 to 029",
        "  trees            sample    group -> trees",
        "  rows             build     self_imitation, from trees, trees@previous -> rows",
        "  train            train     sft, from rows@all -> adapter",
        "  dev              evaluate -> measurement",
        "  gate             gate      from dev",
        "after the last iteration",
        "  everything       build     self_imitation, from trees@all -> rows",
        "  last             train     sft, from everything -> adapter",
        "  test             evaluate -> measurement",
    ]
