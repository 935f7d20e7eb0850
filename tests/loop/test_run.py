"""A whole recipe through the command line: it runs, resumes, refuses what changed, and stops cleanly."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agentloop.cli.main import run as agentloop
from agentloop.dataset.store import ParquetRows
from agentloop.loop.context import Context, Outcome, StageRun
from agentloop.loop.stages import STAGES as STAGES_BY_KIND
from agentloop.recipe import load
from agentloop.report.summary import summarise
from agentloop.run.directory import RunDirectory
from agentloop.run.journal import Journal
from agentloop.trace.store import read_trees

STAGES = [f"{label}/{stage}" for label in ("000", "001") for stage in ("trees", "rows", "policy", "dev", "gate")] + ["final/test"]


def finished(out: Path) -> list[str]:
    return [entry.stage for entry in Journal(out / "journal.jsonl").entries if entry.event == "finished"]


def test_every_stage_runs_once_and_leaves_its_artifact(finished_run: tuple[Path, Path]) -> None:
    _, out = finished_run
    assert finished(out) == STAGES
    for entry in Journal(out / "journal.jsonl").finished_entries():
        for output in entry.outputs.values():
            assert (out / output.path).exists(), output.path
    assert not list(out.rglob("*.partial")) and not list(out.rglob("*.work"))


def test_the_policy_improves_and_the_test_split_is_measured_once(finished_run: tuple[Path, Path]) -> None:
    _, out = finished_run
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in metrics if line["name"] == "success"]
    success = {(line["iteration"], line["stage"], line["adapter"].split("-")[0]): line["value"] for line in lines}
    assert success["001", "dev", "actor"] > success["000", "dev", "base"]
    assert [line["stage"] for line in metrics if line["split"] == "test" and line["name"] == "success"] == ["test", "test"]
    assert {line["iteration"] for line in metrics if line["split"] == "test"} == {"final"}


def test_rows_hold_the_very_ids_of_their_trees_and_say_where_they_came_from(finished_run: tuple[Path, Path]) -> None:
    _, out = finished_run
    trees = {tree.id: tree for tree in read_trees(out / "iterations/000/trees/trees.parquet")}
    rows = list(ParquetRows(out / "iterations/000/rows/rows.parquet"))
    assert rows
    for row in rows:
        tree = trees[row.provenance.tree]
        last = row.provenance.turns[-1]
        assert list(row.input_ids) == tree.context_ids(last) + list(tree[last].completion_ids)
        sampled = [id for turn in row.provenance.turns for id in tree[turn].completion_ids]
        assert [id for id, trained in zip(row.input_ids, row.mask, strict=True) if trained] == sampled
        assert tree[last].success


def test_tasks_of_the_splits_never_meet(finished_run: tuple[Path, Path]) -> None:
    _, out = finished_run
    played = {
        name: {tree.task for path in (out / "iterations").glob(pattern) for tree in read_trees(path)}
        for name, pattern in (("train", "*/trees/trees.parquet"), ("dev", "*/trees/dev*.parquet"), ("test", "final/trees/*"))
    }
    assert not played["train"] & played["dev"] and not played["train"] & played["test"] and not played["dev"] & played["test"]


def test_a_finished_run_does_nothing_when_it_is_started_again(finished_run: tuple[Path, Path]) -> None:
    recipe, out = finished_run
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert agentloop(["run", str(recipe), "--out", str(out), "--quiet"]) == 0
    assert finished(out) == STAGES
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == before
    assert summarise(RunDirectory(out)).state == "finished"


def test_other_settings_on_a_run_are_refused(finished_run: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    recipe, out = finished_run
    assert agentloop(["run", str(recipe), "--out", str(out), "--quiet", "--set", "stages.trees.samples=5"]) == 2
    assert "stage 000/trees was finished with other settings" in capsys.readouterr().err
    assert finished(out) == STAGES


def test_the_report_shows_the_tokens_that_were_trained_on(finished_run: tuple[Path, Path]) -> None:
    _, out = finished_run
    page = (out / "report.html").read_text()
    assert page.count("became a training row") >= 1
    assert '<span class="trained" title="ids ' in page
    assert "actor-001-" in page and "<script" not in page


def test_the_token_ledger_agrees_with_the_trees(finished_run: tuple[Path, Path]) -> None:
    _, out = finished_run
    entry = Journal(out / "journal.jsonl").finished("000/trees")
    assert entry is not None
    turns = [turn for tree in read_trees(out / "iterations/000/trees/trees.parquet") for turn in tree.turns]
    assert entry.tokens["generated"] == sum(len(turn.completion_ids) for turn in turns)
    assert entry.tokens["turns"] == len(turns)


def test_without_wins_the_adapter_stays_and_the_run_says_so(toy_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = toy_recipe(("dataset: self_imitation", "dataset: self_imitation, min_reward: 99"), ("iterations: 2", "iterations: 1"))
    assert agentloop(["run", str(recipe), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    directory = RunDirectory(tmp_path / "out")
    entry = directory.journal.finished("000/policy")
    assert entry is not None and entry.about["note"] == "no rows to train on in rows: the adapter stays as it is"
    assert {line["adapter"] for line in directory.read_metrics()} == {"base"}


def test_a_full_disk_is_told_wherever_it_is_met_and_the_same_command_goes_on(
    toy_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = toy_recipe(("iterations: 2", "iterations: 1")), tmp_path / "out"
    recipe.write_text(recipe.read_text().split("  - train:")[0])
    command = ["run", str(recipe), "--out", str(out), "--quiet"]

    async def full(run: StageRun, context: Context) -> Outcome:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setitem(STAGES_BY_KIND, "build", full)
        assert agentloop(command) == 1
    told = capsys.readouterr().err
    assert "no space left on the disk" in told and "run the same command again" in told and "Traceback" not in told
    assert finished(out) == ["000/trees"]
    assert agentloop(command) == 0
    assert finished(out) == ["000/trees", "000/rows"]


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(toy_recipe: Callable[..., Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "agentloop.cli.main", "run", str(toy_recipe()), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    wait_for(lambda: "000/rows" in finished(out), process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"stopped by Ctrl-C; everything finished is kept: run the same command again to go on in {out}" in errors
    assert "Traceback" not in errors
    assert Journal(out / "journal.jsonl").entries[-1].event == "interrupted"
    assert not living_trainers(out)
    assert agentloop(["run", str(tmp_path / "toy/recipe.yaml"), "--out", str(out), "--quiet"]) == 0
    assert finished(out) == STAGES


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read() if process.stderr else "ended early"
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def living_trainers(out: Path) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if "agentloop.training.worker" in words and str(out) in words and int(folder.name) != os.getpid():
            found.append(words)
    return found


def test_worked_examples_of_ones_own_are_in_every_prompt_and_part_of_what_a_stage_is(
    toy_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = toy_recipe()
    text = recipe.read_text()
    head = text[: text.index("iterations:")] + "prompt: {examples: ./mine.yaml}\n"
    recipe.write_text(head + text[text.index("stages:") : text.index("  - build:")])
    mine, out = recipe.with_name("mine.yaml"), tmp_path / "out"
    mine.write_text("- - {role: user, content: '900'}\n  - {role: assistant, content: '901'}\n")
    command = ["run", str(recipe), "--out", str(out), "--quiet"]
    assert agentloop(command) == 0
    trees = list(read_trees(out / "iterations/000/trees/trees.parquet"))
    decode = context_text(recipe)
    assert trees and all("user\n900<end><s>assistant\n901<end><s>user\n" in decode(tree.turns[0].prompt_ids) for tree in trees)

    mine.write_text('- - role: user\n    content: "900"\n  - role: assistant\n    content: "901"\n')
    assert agentloop(command) == 0, "the same examples, written in another way"
    mine.write_text(mine.read_text().replace("901", "902"))
    assert agentloop(command) == 2
    assert "stage 000/trees was finished with other settings" in capsys.readouterr().err


def context_text(recipe: Path) -> Callable[[Sequence[int]], str]:
    """Ids to text by the tokenizer of the recipe's model."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(load(recipe).model).decode


@pytest.mark.usefixtures("warm_training")
def test_conditions_mixes_and_earlier_iterations(toy_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = toy_recipe(
        (
            "  - train:    {id: policy, from: rows,",
            "  - build:    {id: old, mix: {rows: 0.5, rows@previous: 0.5}}\n  - train:    {id: policy, from: [rows, old],",
        ),
        ("  - evaluate: {id: dev, split: dev,", "  - evaluate: {id: dev, split: dev, when: {metric: success, from: wins, above: 0.0},"),
        ("  - build:    {id: rows,", "  - evaluate: {id: wins, from: trees, split: train}\n  - build:    {id: rows,"),
        ("  - gate:     {from: dev, metric: success, keep: best}\n", ""),
    )
    out = tmp_path / "out"
    assert agentloop(["run", str(recipe), "--out", str(out), "--quiet"]) == 0
    journal = Journal(out / "journal.jsonl")
    counts = {
        entry.stage: output.count for entry in journal.finished_entries() for output in entry.outputs.values() if output.type == "rows"
    }
    # In the first iteration there is nothing earlier, so the mix is of the new rows alone; in the second it is half and half.
    assert counts["000/old"] == counts["000/rows"]
    assert counts["001/old"] == 2 * min(counts["000/rows"], counts["001/rows"])
    measured = {(line["stage"], line["iteration"]) for line in RunDirectory(out).read_metrics()}
    assert {("wins", "000"), ("wins", "001"), ("dev", "000"), ("dev", "001")} <= measured


def test_pass_at_n_is_measured_where_a_recipe_asks_for_it(toy_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = toy_recipe()
    head = recipe.read_text().split("iterations:")[0]
    stage = "{id: dev, split: dev, tasks: 10, samples: %d, temperature: 1.0, max_tokens: 8, metrics: [success, pass]}"
    recipe.write_text(
        f"{head}iterations: 1\nstages:\n  - evaluate: {stage % 3}\nfinal:\n  - evaluate: {stage % 1}\n".replace("id: dev", "id: one", 1)
    )
    assert agentloop(["run", str(recipe), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    found = {(line["stage"], line["name"]): line["value"] for line in RunDirectory(tmp_path / "out").read_metrics()}
    assert {name for _, name in found} == {"success", "pass", "failures"}
    assert found["one", "pass"] > found["one", "success"], "one of three samples is right more often than each"
    assert found["dev", "pass"] == found["dev", "success"]
