"""One process a run, and metrics that follow from the journal alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agentloop.errors import Mistake
from agentloop.run.directory import locked
from agentloop.run.journal import Entry


def test_a_second_process_is_refused_with_the_first_ones_pid(tmp_path: Path) -> None:
    run = tmp_path / "run"
    program = (
        "from pathlib import Path\nfrom agentloop.run.directory import locked\n"
        f"with locked(Path({str(run)!r})):\n    print('locked', flush=True)\n    input()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None and first.stdout.readline() == "locked\n"
        with pytest.raises(Mistake, match=rf"another process \(pid {first.pid}\) is working in this run"), locked(run):
            pass
        first.kill()
    with locked(run) as directory:
        assert directory.path == run


def test_a_directory_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(Mistake, match="the directory holds something else"), locked(tmp_path):
        pass
    with pytest.raises(Mistake, match="the run's directory is a file"), locked(tmp_path / "thesis.tex"):
        pass


def test_metrics_are_there_once_however_often_they_are_written(tmp_path: Path) -> None:
    with locked(tmp_path / "run") as directory:
        for stage, value in (("000/dev", 0.25), ("001/dev", 0.5)):
            directory.journal.append(Entry("finished", stage, measurements=({"name": "success", "value": value, "stage": "dev"},)))
            directory.write_metrics()
            directory.write_metrics()
        lines = [json.loads(line) for line in directory.metrics.read_text().splitlines()]
    assert [line["value"] for line in lines] == [0.25, 0.5]
    assert lines == directory.read_metrics()
