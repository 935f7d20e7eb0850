"""Mixing: shares to within a row, no row twice, the same mix from the same seed."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.dataset.mix import MixedRows
from agentloop.dataset.row import Provenance, Row
from agentloop.errors import Mistake


def source(name: str, count: int) -> list[Row]:
    return [
        Row(f"{name}{n}", (1, 2), (0, 1), None, "actor", name, 1.0, True, "base", 1.0, Provenance(name, (str(n),))) for n in range(count)
    ]


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(0, 40), st.floats(0.01, 10)), min_size=1),
    seed=st.integers(0, 5),
)
def test_shares_hold_to_within_a_row_and_no_row_comes_twice(sizes: dict[str, tuple[int, float]], seed: int):
    mix = MixedRows(
        {name: source(name, n) for name, (n, _) in sizes.items()}, {name: share for name, (_, share) in sizes.items()}, seed=seed
    )
    rows = list(mix)
    assert len(rows) == len(mix) == len({row.id for row in rows})
    counts = Counter(row.task for row in rows)
    used = {name: share for name, (n, share) in sizes.items() if n}
    for name, share in used.items():
        assert abs(counts[name] - len(rows) * share / sum(used.values())) < 1 + 1e-6
    if used:
        assert any(counts[name] >= sizes[name][0] - 1 for name in used), "the scarcest source is used up"


def test_the_mix_depends_on_the_seed_only():
    sources = {"a": source("a", 30), "b": source("b", 30)}
    shares = {"a": 0.8, "b": 0.2}
    first = [row.id for row in MixedRows(sources, shares, seed=1)]
    assert first == [row.id for row in MixedRows(sources, shares, seed=1)]
    assert first != [row.id for row in MixedRows(sources, shares, seed=2)]
    assert Counter(name[0] for name in first) == {"a": 30, "b": 7} or Counter(name[0] for name in first) == {"a": 30, "b": 8}
    assert first[:30] != [f"a{n}" for n in range(30)], "sources are interleaved"


def test_an_empty_source_leaves_its_share_to_the_others():
    mix = MixedRows({"new": source("new", 10), "replay": []}, {"new": 0.5, "replay": 0.5})
    assert mix.counts == {"new": 10, "replay": 0}
    assert len(list(MixedRows({"a": []}, {"a": 1.0}))) == 0


def test_a_share_of_nothing_takes_nothing():
    assert MixedRows({"a": source("a", 5), "b": source("b", 5)}, {"a": 1.0, "b": 0.0}).counts == {"a": 5, "b": 0}


@pytest.mark.parametrize(
    ("shares", "message"), [({"a": -1.0, "b": 2.0}, "positive"), ({"a": 0.0, "b": 0.0}, "positive"), ({"a": 1.0}, "one share a source")]
)
def test_senseless_shares_are_refused(shares: dict[str, float], message: str):
    with pytest.raises(Mistake, match=message):
        MixedRows({"a": source("a", 5), "b": source("b", 5)}, shares)
