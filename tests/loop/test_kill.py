"""Killed at any instant and started again, a run ends with the same content: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Journal
from agentloop.trace.store import read_trees
from tests.servers import TinyServer
from tests.warm import WarmStart

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


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_at_twenty_random_moments_ends_as_one_that_was_not(
    finished_run: tuple[Path, Path], warm: WarmStart, tmp_path: Path
) -> None:
    # The run that nobody kills has its trainings started in the ordinary way, so equal contents prove that a warm start changes nothing.
    recipe, whole = finished_run
    expected = contents(whole)
    assert len(expected) == 11

    # A kill comes some journal lines after the start and a moment later, so that the runs get on and the kills meet every stage.
    moments = random.Random(5)
    kills, runs = 0, 0
    while kills < KILLS:
        out = tmp_path / f"killed-{runs}"
        runs += 1
        while True:
            began_at = time.monotonic()
            process = warm.run(recipe, out)
            wanted = lines(out) + moments.randint(1, 5)
            while kills < KILLS and process.poll() is None and lines(out) < wanted:
                time.sleep(0.01)
            try:
                process.wait(timeout=moments.uniform(0.0, 0.3) if kills < KILLS else 120)
            except subprocess.TimeoutExpired:
                assert kills < KILLS, f"waited 120 s for the run in {out} to end"
                process.kill()
                assert process.wait(timeout=30) == -signal.SIGKILL
                kills += 1
                last = Journal(out / "journal.jsonl").entries[-1] if (out / "journal.jsonl").exists() else None
                print("KILL", runs, last and last.event, last and last.stage, round(time.monotonic() - began_at, 2))
                continue
            assert process.returncode == 0, warm.log(out).read_text()
            print("END", runs, round(time.monotonic() - began_at, 2))
            break
        assert contents(out) == expected
        stages = [entry.stage for entry in Journal(out / "journal.jsonl").entries if entry.event == "finished"]
        assert len(stages) == len(set(stages)) == 11
        assert files(out) == files(whole), "nothing is left of what was not finished"
    assert kills == KILLS


def files(out: Path) -> set[str]:
    """Everything in the folders of the iterations."""
    return {path.relative_to(out).as_posix() for path in (out / "iterations").rglob("*")}


def lines(out: Path) -> int:
    """Lines of the journal so far."""
    journal = out / "journal.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.timeout(900)
def test_with_vllm_a_killed_run_ends_with_the_same_counts_and_leaves_no_adapter_behind(
    tiny_server: TinyServer, warm: WarmStart, tmp_path: Path
) -> None:
    folder = Path(__file__).parent / "toy"
    (tmp_path / "anything.py").write_text((folder / "anything.py").read_text())
    recipe = tmp_path / "recipe.yaml"
    text = (folder / "vllm.yaml").read_text()
    recipe.write_text(text.replace("MODEL", str(tiny_server.world.model_path)).replace("URL", tiny_server.url))
    out = tmp_path / "out"
    kills = 0
    # A kill right after each of these began: in sampling, in training, with a fresh adapter on the server, in an evaluation.
    for stage in ("000/trees", "000/policy", "000/dev", "001/policy", "001/dev"):
        process = warm.run(recipe, out)
        deadline = time.monotonic() + 240
        while not began(out, stage):
            assert process.poll() is None, warm.log(out).read_text()
            assert time.monotonic() < deadline, f"waited 240 s for {stage} to begin"
            time.sleep(0.02)
        process.kill()
        assert process.wait(timeout=30) == -signal.SIGKILL
        kills += 1
    assert warm.run(recipe, out).wait(timeout=400) == 0, warm.log(out).read_text()

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
