"""The journal survives a kill at any byte and says what is finished."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.errors import RunFailed
from agentloop.run.journal import Entry, Journal, Output

ENTRIES = [
    Entry("run", "", about={"name": "demo"}, time=0.5),
    Entry("started", "000/trees", fingerprint="f0", time=1.0),
    Entry(
        "finished",
        "000/trees",
        fingerprint="f0",
        outputs={"trees": Output("trees", "iterations/000/trees/trees.parquet", "ab", 3, {"split": "train"})},
        measurements=({"name": "success", "value": 0.5},),
        tokens={"generated": 10},
        failures={"environment.step": 1},
        seconds=2.5,
        time=2.0,
    ),
    Entry("failed", "000/rows", message="no rows “at all”", time=3.0),
]


def test_entries_come_back_as_they_were_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    for entry in ENTRIES:
        journal.append(entry)
    again = Journal(tmp_path / "journal.jsonl")
    assert again.entries == ENTRIES
    assert again.finished("000/trees") == ENTRIES[2]
    assert again.finished("000/rows") is None


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(min_value=0, max_value=2000))
def test_a_kill_while_writing_drops_at_most_the_last_line(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    lines = [(entry.to_json() + "\n").encode() for entry in ENTRIES]
    data = b"".join(lines)[:cut]
    path.write_bytes(data)
    whole = data.count(b"\n")
    journal = Journal(path)
    assert journal.entries == ENTRIES[:whole]
    journal.append(ENTRIES[-1])
    assert Journal(path).entries == [*ENTRIES[:whole], ENTRIES[-1]]


def test_a_foreign_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(ENTRIES[0].to_json() + '\n{"colour": "red"}\n')
    with pytest.raises(RunFailed, match=r"journal\.jsonl:2: not a journal entry"):
        Journal(path)
