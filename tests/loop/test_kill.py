"""Killed at any instant and started again, a run ends with the same content: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Journal
from agentloop.trace.store import read_trees
from tests.servers import TinyServer

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
    assert whole.wait(timeout=600) == 0
    expected = contents(tmp_path / "whole")
    assert len(expected) == 11

    # A kill comes some journal lines after the start and a moment later, so that the runs get on and the kills meet every stage.
    moments = random.Random(5)
    kills, runs = 0, 0
    while kills < KILLS:
        out = tmp_path / f"killed-{runs}"
        runs += 1
        while True:
            process = start(recipe, out)
            wanted = lines(out) + moments.randint(1, 5)
            while kills < KILLS and process.poll() is None and lines(out) < wanted:
                time.sleep(0.01)
            try:
                process.wait(timeout=moments.uniform(0.0, 1.0) if kills < KILLS else 600)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait(timeout=30)
                kills += 1
                continue
            assert process.returncode == 0, process.stderr.read().decode() if process.stderr else ""
            break
        assert contents(out) == expected
        stages = [entry.stage for entry in Journal(out / "journal.jsonl").entries if entry.event == "finished"]
        assert len(stages) == len(set(stages)) == 11
        assert not list(out.rglob("*.partial")) and not list(out.rglob("*.work"))
    assert kills == KILLS


def lines(out: Path) -> int:
    """Lines of the journal so far."""
    journal = out / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_with_vllm_a_killed_run_ends_with_the_same_counts_and_leaves_no_adapter_behind(tiny_server: TinyServer, tmp_path: Path) -> None:
    folder = Path(__file__).parent / "toy"
    (tmp_path / "anything.py").write_text((folder / "anything.py").read_text())
    recipe = tmp_path / "recipe.yaml"
    text = (folder / "vllm.yaml").read_text()
    recipe.write_text(text.replace("MODEL", str(tiny_server.world.model_path)).replace("URL", tiny_server.url))
    out = tmp_path / "out"
    kills = 0
    # A kill right after each of these began: in sampling, in training, with a fresh adapter on the server, in an evaluation.
    for stage in ("000/trees", "000/policy", "000/dev", "001/policy", "001/dev"):
        process = start(recipe, out)
        deadline = time.monotonic() + 240
        while not began(out, stage):
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            assert time.monotonic() < deadline, f"waited in vain for {stage}"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
        kills += 1
    process = start(recipe, out)
    assert process.wait(timeout=400) == 0, process.stderr.read().decode() if process.stderr else ""

    entries = [entry for entry in Journal(out / "journal.jsonl").entries if entry.event == "finished"]
    stages = ("trees", "rows", "policy", "dev", "gate")
    assert [entry.stage for entry in entries] == [f"{label}/{stage}" for label in ("000", "001") for stage in stages]
    counts = {f"{entry.stage}:{output.type}": output.count for entry in entries for output in entry.outputs.values()}
    for label in ("000", "001"):
        assert counts[f"{label}/trees:trees"] == 5
        assert counts[f"{label}/rows:rows"] == 15
        played = [leaf.id for tree in read_trees(out / f"iterations/{label}/trees/trees.parquet") for leaf in tree.leaves()]
        assert len(played) == 15
    assert [line["n"] for line in RunDirectory(out).read_metrics() if line["name"] == "success"] == [4, 4]
    assert kills == 5
    assert not [card["id"] for card in models(tiny_server.url) if str(out) in str(card.get("root", ""))]


def began(out: Path, stage: str) -> bool:
    """Whether a stage has begun in this directory; it may have been killed before, then it begins again."""
    if not (out / "journal.jsonl").exists():
        return False
    entries = Journal(out / "journal.jsonl").entries
    return bool(entries) and entries[-1].event == "started" and entries[-1].stage == stage


def models(url: str) -> list[dict[str, object]]:
    """What the server lists."""
    with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as answer:
        return list(json.load(answer)["data"])
