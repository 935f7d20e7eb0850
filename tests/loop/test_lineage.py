"""The lineage follows from the journal alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentloop.engine.base import BASE
from agentloop.loop.lineage import Incumbent, Lineage, decide
from agentloop.run.journal import Entry, Output

ROOT = Path("run")


def trained(iteration: int, role: str = "actor") -> Entry:
    name = f"{role}-{iteration:03d}-hash"
    output = Output("adapter", f"iterations/{iteration:03d}/adapters/{role}", "hash", about={"name": name, "role": role})
    return Entry("finished", f"{iteration:03d}/train", outputs={role: output})


def gated(iteration: int, best: str, value: float) -> Entry:
    return Entry("finished", f"{iteration:03d}/gate", about={"gate": {"role": "actor", "best": best, "value": value}})


def test_before_anything_is_trained_every_role_plays_with_the_base() -> None:
    lineage = Lineage.replay([], ROOT)
    assert lineage.playing("actor") == BASE == lineage.best_of("actor")
    assert lineage.start_of("actor", "previous") is None
    assert lineage.in_use() == set()


def test_without_a_gate_the_latest_version_is_the_best() -> None:
    lineage = Lineage.replay([trained(0), trained(1)], ROOT)
    assert lineage.playing("actor") == lineage.best_of("actor") == "actor-001-hash"
    start = lineage.start_of("actor", "previous")
    assert start is not None and start.path == ROOT / "iterations/001/adapters/actor"
    assert lineage.start_of("actor", "base") is None


def test_a_gate_returns_to_the_best_version() -> None:
    entries = [trained(0), gated(0, "actor-000-hash", 0.6), trained(1), gated(1, "actor-000-hash", 0.6)]
    lineage = Lineage.replay(entries, ROOT)
    assert lineage.playing("actor") == "actor-000-hash"
    assert lineage.in_use() == {"actor-000-hash"}
    lineage.apply(trained(2), ROOT)
    assert lineage.playing("actor") == "actor-002-hash"
    assert lineage.best_of("actor") == "actor-000-hash"
    assert lineage.in_use() == {"actor-000-hash", "actor-002-hash"}


def test_roles_do_not_mix() -> None:
    lineage = Lineage.replay([trained(0), trained(0, "critic"), gated(0, BASE, 0.1)], ROOT)
    assert lineage.playing("actor") == BASE
    assert lineage.playing("critic") == "critic-000-hash"


@pytest.mark.parametrize(
    ("value", "incumbent", "margin", "adopted"),
    [
        (0.5, Incumbent(BASE, None), 0.1, True),
        (0.5, Incumbent(BASE, 0.5), 0.0, False),
        (0.5, Incumbent(BASE, 0.45), 0.1, False),
        (0.55, Incumbent(BASE, 0.25), 0.25, True),
        (0.5, Incumbent(BASE, 0.25), 0.25, False),
        (0.4, Incumbent("new", 0.6), 0.0, True),
    ],
)
def test_the_gate_adopts_only_what_beats_the_incumbent_by_the_margin(
    value: float, incumbent: Incumbent, margin: float, adopted: bool
) -> None:
    result = decide(candidate="new", value=value, incumbent=incumbent, margin=margin)
    assert result == (Incumbent("new", value) if adopted else incumbent)
