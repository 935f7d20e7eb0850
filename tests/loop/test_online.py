"""`train` with `online`: rounds are played by the policies that they are for, a kill changes nothing, and whoever fails is told of."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentloop.cli.main import run as agentloop
from agentloop.dataset.store import ParquetRows
from agentloop.run.journal import Entry, Journal
from agentloop.trace.store import read_trees
from agentloop.training import launch
from tests.loop.test_kill import contents, files
from tests.training.test_sft import adapter_bytes
from tests.warm import WarmStart

TOY = Path(__file__).parent / "toy"

SCRIPTED = """\
name: online
model: MODEL
engine: {kind: scripted, script: ./reckoner.py:answer, max_model_len: 8000}
environment: {id: calculator, terse: true, levels: [2]}
seed: 3
iterations: 2
stages:
  - train:
      method: grpo
      rank: 4
      batch_size: 8
      learning_rate: 1.0e-3
      online:
        rounds: 3
        staleness: 1
        refill: 2
        sample: {tasks: 3, samples: 3, max_tokens: 32, max_turns: 6}
"""

LETTERS = '''\
"""Small letters are rewarded."""

from agentloop import Environment, StepResult, Task


class Letters(Environment):
    def tasks(self, split):
        return [Task(f"{split}-{number}", {"number": number}) for number in range(40)]

    def reset(self, task):
        return f"Say something, {task.id}."

    def step(self, action):
        return StepResult("", sum(map(str.islower, action)) / 8, True)
'''


@pytest.fixture
def write(tmp_path: Path, toy_model: Path) -> Callable[..., Path]:
    """Writes the recipe into a folder of its own; `changes` are pairs of old and new text."""

    def write(*changes: tuple[str, str]) -> Path:
        folder = tmp_path / "recipe"
        folder.mkdir(exist_ok=True)
        shutil.copy(TOY / "reckoner.py", folder)
        (folder / "letters.py").write_text(LETTERS)
        text = SCRIPTED.replace("MODEL", str(toy_model))
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        (folder / "recipe.yaml").write_text(text)
        return folder / "recipe.yaml"

    return write


def entry(out: Path, key: str = "000/train") -> Entry:
    found = Journal(out / "journal.jsonl").finished(key)
    assert found is not None
    return found


def rounds_of(out: Path, label: str = "000") -> list[Path]:
    return sorted((out / "iterations" / label / "online" / "train").glob("0*"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_killed_at_random_moments_ends_as_one_that_was_not(write: Callable[..., Path], warm: WarmStart, tmp_path: Path) -> None:
    """The same episodes, rows, adapters after each round, and result, and nothing but these."""
    recipe = write()
    whole, out = tmp_path / "whole", tmp_path / "killed"
    began_at = time.monotonic()
    assert warm.run(recipe, whole).wait(timeout=300) == 0, warm.log(whole).read_text()
    took = time.monotonic() - began_at
    moments, kills = random.Random(2), 0
    while kills < 6:
        process = warm.run(recipe, out)
        try:
            process.wait(timeout=moments.uniform(0.2, 0.8) * took)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=30)
            kills += 1
            continue
        assert process.returncode == 0, warm.log(out).read_text()
        break
    assert warm.run(recipe, out).wait(timeout=300) == 0, warm.log(out).read_text()
    assert kills and contents(out) == contents(whole) and files(out) == files(whole)
    for label in ("000", "001"):
        assert len(rounds_of(out, label)) == 3
        for one, other in zip(rounds_of(out, label), rounds_of(whole, label), strict=True):
            assert [row.id for row in ParquetRows(one / "rows.parquet")] == [row.id for row in ParquetRows(other / "rows.parquet")]
            facts = [json.loads((folder / "round.json").read_text())["facts"] for folder in (one, other)]
            assert facts[0]["adapter"] == facts[1]["adapter"] and facts[0]["tokens"] == facts[1]["tokens"]
        adapters = [out / "iterations" / label / "adapters" / "actor", whole / "iterations" / label / "adapters" / "actor"]
        assert adapter_bytes(str(adapters[0])) == adapter_bytes(str(adapters[1]))


@pytest.mark.slow
@pytest.mark.usefixtures("warm_training")
def test_groups_that_say_nothing_are_refilled(write: Callable[..., Path], tmp_path: Path) -> None:
    """Other tasks are played until there are as many groups as asked for, or `refill` waves are over; no task twice in a round."""
    assert agentloop(["run", str(write(("iterations: 2", "iterations: 1"))), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    told = entry(tmp_path / "out").about["rounds"]
    adapters = [one["adapter"] for one in told]
    assert adapters[:2] == ["base", "base"] and adapters[2].startswith("actor-000-"), "a round of lag"
    waves = 0
    for folder, facts in zip(rounds_of(tmp_path / "out"), told, strict=True):
        trees = [tree for path in sorted(folder.glob("trees-*.parquet")) for tree in read_trees(path)]
        assert len({tree.task for tree in trees}) == len(trees) and facts["episodes"] == 3 * len(trees)
        mixed = {tree.id for tree in trees if len({leaf.success for leaf in tree.leaves()}) == 2}
        groups = {row.provenance.tree for row in ParquetRows(folder / "rows.parquet")}
        assert groups == mixed and (len(mixed) == 3 or len(list(folder.glob("trees-*.parquet"))) == 3)
        waves += len(list(folder.glob("trees-*.parquet")))
    assert waves > 3, "some round had a group that said nothing"


@pytest.mark.slow
@pytest.mark.usefixtures("warm_training")
def test_without_a_row_in_any_round_the_adapter_stays(write: Callable[..., Path], tmp_path: Path) -> None:
    """As in a training on rows that are not there; what it cost is told all the same."""
    changes = [("samples: 3", "samples: 1"), ("refill: 2", "refill: 0"), ("iterations: 2", "iterations: 1"), ("rounds: 3", "rounds: 2")]
    assert agentloop(["run", str(write(*changes)), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    told = entry(tmp_path / "out")
    assert not told.outputs and told.about["note"] == "no rows to train on in 2 rounds: the adapter stays as it is"
    assert told.tokens["generated"] > 0 and "trained" not in told.tokens


@pytest.mark.slow
@pytest.mark.usefixtures("warm_training")
def test_what_plays_a_round_is_what_the_rounds_before_have_trained(write: Callable[..., Path], tmp_path: Path) -> None:
    """On a real engine: what was sampled has the log-probabilities that the trainer computes, though each round moves the policy."""
    changes = [
        ("{kind: scripted, script: ./reckoner.py:answer, max_model_len: 8000}", "{kind: transformers}"),
        ("{id: calculator, terse: true, levels: [2]}", "{id: ./letters.py}"),
        ("staleness: 1", "staleness: 0"),
        ("iterations: 2", "iterations: 1"),
        ("1.0e-3", "3.0e-2"),
        ("batch_size: 8", "batch_size: 16"),
        ("max_tokens: 32, max_turns: 6", "max_tokens: 8, max_turns: 1"),
    ]
    assert agentloop(["run", str(write(*changes)), "--out", str(tmp_path / "out"), "--quiet"]) == 0
    told = entry(tmp_path / "out").about
    lines = (tmp_path / "out" / "logs" / "training" / "000-train" / "progress.jsonl").read_text().splitlines()
    assert len({one["adapter"] for one in told["rounds"]}) == len(lines) == 3
    assert all(json.loads(line)["log_ratio"] < 1e-4 for line in lines)
    assert all(one["check"] for one in told["rounds"][1:]), "each version was checked before it played"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "trainer", "message"),
    [
        ("./reckoner.py:answer", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed (SIGKILL), as systems do"),
        ("./reckoner.py:answer", "print('torch.OutOfMemoryError'); raise SystemExit(1)", "ran out of memory; a smaller batch_size"),
        ("./broken.py:answer", "import time; time.sleep(300)", "too much to bear"),
    ],
)
def test_the_first_that_fails_ends_the_other_and_is_told_of(
    write: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    script: str,
    trainer: str,
    message: str,
) -> None:
    started: list[Any] = []

    def start(job: Any, work: Path, log: Any) -> subprocess.Popen[bytes]:
        import sys

        command = [sys.executable, "-c", trainer]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True))
        return started[0]

    monkeypatch.setattr(launch, "start", start)
    recipe = write(("./reckoner.py:answer", script))
    (recipe.parent / "broken.py").write_text("def answer(prompt_text, request):\n    raise RuntimeError('too much to bear')\n")
    assert agentloop(["run", str(recipe), "--out", str(tmp_path / "out"), "--quiet"]) == 1
    assert message in capsys.readouterr().err
    assert started[0].poll() is not None
