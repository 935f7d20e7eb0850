"""Killed at any instant and started again, a run ends with the same content: nothing lost, nothing doubled."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
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

    for out in ended(recipe, warm, tmp_path, random.Random(5)):
        assert contents(out) == expected
        stages = [entry.stage for entry in Journal(out / "journal.jsonl").entries if entry.event == "finished"]
        assert len(stages) == len(set(stages)) == 11
        assert files(out) == files(whole), "nothing is left of what was not finished"


def ended(recipe: Path, warm: WarmStart, folder: Path, moments: random.Random) -> Iterator[Path]:
    """The directories of as many runs as it takes to kill KILLS times, each when its run has ended.

    A kill comes some journal lines after a start and a moment later, so that the runs get on and the kills meet every stage.
    """
    kills, runs = 0, 0
    while kills < KILLS:
        out = folder / f"killed-{runs}"
        runs += 1
        while True:
            process = warm.run(recipe, out)
            wanted = lines(out) + moments.randint(1, 5)
            while kills < KILLS and process.poll() is None and lines(out) < wanted:
                time.sleep(0.01)
            try:
                process.wait(timeout=moments.uniform(0.0, 0.3) if kills < KILLS else 300)
            except subprocess.TimeoutExpired:
                assert kills < KILLS, f"waited 300 s for the run in {out} to end"
                process.kill()
                assert process.wait(timeout=30) == -signal.SIGKILL
                kills += 1
                continue
            assert process.returncode == 0, warm.log(out).read_text()
            break
        yield out
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
def test_with_vllm_a_run_killed_at_twenty_random_moments_ends_with_the_same_counts_and_leaves_no_adapter_behind(
    tiny_server: TinyServer, warm: WarmStart, tmp_path: Path
) -> None:
    folder = Path(__file__).parent / "toy"
    (tmp_path / "anything.py").write_text((folder / "anything.py").read_text())
    recipe = tmp_path / "recipe.yaml"
    text = (folder / "vllm.yaml").read_text()
    recipe.write_text(text.replace("MODEL", str(tiny_server.world.model_path)).replace("URL", tiny_server.url))
    for out in ended(recipe, warm, tmp_path, random.Random(6)):
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
        assert not [card["id"] for card in models(tiny_server.url) if str(out) in str(card.get("root", ""))]


def models(url: str) -> list[dict[str, object]]:
    """What the server lists."""
    with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as answer:
        return list(json.load(answer)["data"])
