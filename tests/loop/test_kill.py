"""Killed at any instant and started again, a run ends with the same content: nothing lost, nothing doubled."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from agentloop.run.journal import Journal

KILLS = 20


def contents(out: Path) -> dict[str, str]:
    """Content hash of every artifact, by stage and name, and the decisions of the gates."""
    found = {}
    for entry in Journal(out / "journal.jsonl").finished_entries():
        for name, output in entry.outputs.items():
            found[f"{entry.stage}:{name}"] = output.content_hash
        if "gate" in entry.about:
            found[f"{entry.stage}:gate"] = str(entry.about["gate"])
    return found


def start(recipe: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "agentloop.cli.main", "run", str(recipe), "--out", str(out), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_run_killed_at_twenty_random_moments_ends_as_one_that_was_not(toy_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = toy_recipe()
    whole = start(recipe, tmp_path / "whole")
    began = time.monotonic()
    assert whole.wait(timeout=600) == 0
    expected = contents(tmp_path / "whole")
    assert len(expected) == 11

    moments = random.Random(5)
    killed_in: Counter[str] = Counter()
    kills, runs = 0, 0
    length = time.monotonic() - began
    while kills < KILLS:
        out = tmp_path / f"killed-{runs}"
        runs += 1
        while True:
            process = start(recipe, out)
            try:
                process.wait(timeout=moments.uniform(0.05, 0.6) * length if kills < KILLS else 600)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait(timeout=30)
                kills += 1
                entries = Journal(out / "journal.jsonl").entries if (out / "journal.jsonl").exists() else []
                killed_in[entries[-1].stage if entries else "before the first stage"] += 1
                continue
            assert process.returncode == 0, process.stderr.read().decode() if process.stderr else ""
            break
        assert contents(out) == expected
        stages = [entry.stage for entry in Journal(out / "journal.jsonl").entries if entry.event == "finished"]
        assert len(stages) == len(set(stages)) == 11
        assert not list(out.rglob("*.partial")) and not list(out.rglob("*.work"))
    assert kills == KILLS and len(killed_in) >= 3, f"the kills met too few moments: {killed_in}"
