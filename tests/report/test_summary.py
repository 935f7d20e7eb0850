"""The report's figures follow from the journal."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from agentloop.report.html import render
from agentloop.report.summary import summarise
from agentloop.report.terminal import print_summary
from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Entry, Output


def measured(iteration: str, adapter: str, value: float, split: str = "dev") -> Entry:
    measurement = {"iteration": iteration, "stage": "dev", "split": split, "adapter": adapter, "name": "success", "n": 100}
    measurement |= {"value": value, "low": value - 0.1, "high": value + 0.1}
    return Entry(
        "finished",
        f"{iteration}/dev",
        measurements=(measurement,),
        tokens={"generated": 50},
        failures={"environment.step": 2},
        seconds=3.0,
        about={"kind": "evaluate"},
    )


def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    directory.journal.append(Entry("run", "", about={"name": "demo", "model": "tiny", "environment": "calculator"}))
    directory.journal.append(measured("000", "base", 0.25))
    trained = Entry(
        "finished",
        "000/train",
        outputs={"actor": Output("adapter", "a", "h", 0)},
        tokens={"trained": 70},
        seconds=9.0,
        about={"kind": "train", "waits": {"engine start": 4.0}},
    )
    directory.journal.append(trained)
    directory.journal.append(measured("001", "actor-000-abc", 0.75))
    return directory


def test_times_tokens_and_failures_add_up(tmp_path: Path) -> None:
    summary = summarise(run(tmp_path))
    assert summary.seconds == {"evaluate": 6.0, "train": 5.0, "engine start": 4.0}
    assert summary.tokens == {"generated": 100, "trained": 70}
    assert summary.failures == {"environment.step": 4}
    assert [(point.label, point.value) for point in summary.of("success")] == [("base", 0.25), ("iteration 2", 0.75)]


def test_an_adapter_that_was_deleted_is_said_to_be(tmp_path: Path) -> None:
    directory = run(tmp_path)
    directory.journal.append(Entry("deleted", "000/train", about={"adapter": "actor-000-abc", "path": "a"}))
    assert [line.made for line in summarise(directory).stages] == ["", "adapter, deleted since", ""]


def test_a_stage_that_ran_twice_counts_once(tmp_path: Path) -> None:
    directory = run(tmp_path)
    directory.journal.append(Entry("failed", "002/dev", message="out of memory", seconds=1.0, about={"kind": "evaluate"}))
    assert summarise(directory).state == "failed: out of memory"
    directory.journal.append(measured("002", "actor-001-abc", 0.8))
    assert [line.event for line in summarise(directory).stages] == ["finished"] * 4


def shown(directory: RunDirectory) -> str:
    """The summary as a terminal shows it."""
    stream = io.StringIO()
    print_summary(summarise(directory), Console(file=stream, width=120))
    return stream.getvalue()


def test_a_training_that_made_nothing_is_told_at_once(tmp_path: Path) -> None:
    directory = run(tmp_path)
    assert "nothing trained" not in shown(directory) and "Nothing was trained" not in render(summarise(directory), [])
    note = "no rows to train on in rows: the adapter stays as it is"
    directory.journal.append(Entry("finished", "001/train", about={"kind": "train", "note": note}))
    assert [line.stage for line in summarise(directory).untrained] == ["001/train"]
    assert f"nothing trained: 001/train, {note}\n" in shown(directory)
    assert f"Nothing was trained in 001/train: {note}." in render(summarise(directory), [])


def test_what_was_done_again_is_told_with_its_reason(tmp_path: Path) -> None:
    directory = run(tmp_path)
    assert "retried" not in shown(directory) and "sent again" not in shown(directory)
    first, second = {"retried": {"environment.timeout": 1}, "resent": {"HTTP 503": 2}}, {"retried": {"environment.timeout": 2}}
    first["first_failures"] = {"environment.timeout": "waited 60 s for step() <b>"}  # type: ignore[dict-item]
    directory.journal.append(Entry("finished", "000/trees", about={"kind": "sample"} | first))
    directory.journal.append(Entry("finished", "001/trees", about={"kind": "sample"} | second))
    assert "\nretried: environment.timeout 3\nrequests sent again: HTTP 503 2\n" in shown(directory)
    page = render(summarise(directory), [])
    assert "environment.timeout 3" in page and "HTTP 503 2" in page and "waited 60 s for step() &lt;b&gt;" in page


def test_what_an_environment_says_cannot_become_markup(tmp_path: Path) -> None:
    directory = run(tmp_path)
    attack = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    directory.journal.append(Entry("failed", "003/dev", message=attack))
    page = render(summarise(directory), [])
    assert "<script>" not in page and "<img" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_report_needs_no_other_file(tmp_path: Path) -> None:
    page = render(summarise(run(tmp_path)), [])
    assert "<svg" in page
    for outside in ("src=", "<link", "@import", "url(http"):
        assert outside not in page
