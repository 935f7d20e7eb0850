"""`agentloop eval` from the command line to `results.json`, with the scripted engine."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from agentloop.cli.main import run
from agentloop.trace.store import read_trees
from tests.servers import TinyServer
from tests.tiny_model import make_model

ENVIRONMENT = '''
from agentloop import Environment, StepResult, Task

class Count(Environment):
    """Say the number after the one that is shown."""

    def __init__(self, first: int = 0, broken: int = -1) -> None:
        self.first, self.broken = first, broken

    def tasks(self, split):
        return [Task(f"{split}-{number}", {"number": self.first + number}) for number in range(20)] if split != "dev" else []

    def reset(self, task):
        self.number = task.data["number"]
        return f"number {self.number}"

    def step(self, action):
        if self.number == self.broken:
            raise OSError("no abacus")
        return StepResult("done", float(action == str(self.number + 1)), True)

    def demonstration(self, task):
        return [str(task.data["number"] + 1)]
'''

SCRIPT = '''
import re
from pathlib import Path

asked = Path(__file__).with_suffix(".asked")

def answer(prompt, request):
    """Right for small numbers, with an adapter also for the middling ones."""
    with asked.open("a") as file:
        file.write(f"{request.adapter} {request.seed}\\n")
    number = int(re.findall(r"number (\\d+)", prompt)[-1])
    return str(number + 1) if number < (6 if request.adapter == "base" else 16) else "pass"

def forbidden(prompt, request):
    raise AssertionError("the engine was asked again")
'''


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "model", layers=1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "count.py").write_text(ENVIRONMENT)
    (tmp_path / "script.py").write_text(SCRIPT)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}))
    save_file({"base_model.model.q_proj.lora_A.weight": np.ones((4, 8), np.float32)}, adapter / "adapter_model.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(model: Path, *more: str, script: str = "answer", out: str | None = "out") -> int:
    where = [] if out is None else ["--out", out]
    engine = ["--engine", "scripted", "--engine-option", f"script=script.py:{script}"]
    return run(["eval", "./count.py", "--model", str(model), *engine, *where, *more])


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def measured(found: dict[str, Any], subject: str, name: str) -> dict[str, Any]:
    (one,) = [measurement for measurement in found["results"][subject]["measurements"] if measurement["name"] == name]
    return dict(one)


def test_a_model_is_scored_and_everything_that_decides_the_score_is_kept(
    folder: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(model, "--option", "first=1", "--seed", "5", "--max-tokens", "8", "--examples", "1") == 0
    found = results(folder / "out")
    success = measured(found, "base", "success")
    assert (success["value"], success["n"], success["tasks"]) == (0.25, 20, 20)
    assert 0.1 < success["low"] < 0.25 < success["high"] < 0.5
    assert [measurement["name"] for measurement in found["results"]["base"]["measurements"]] == [
        "success",
        "reward",
        "turns",
        "tokens",
        "failures",
    ]
    asked = found["configuration"]
    assert (asked["options"], asked["seed"], asked["split"], asked["temperature"], asked["max_tokens"]) == ({"first": 1}, 5, "test", 0.0, 8)
    assert asked["benchmark"] == str((folder / "count.py").resolve()) and len(asked["benchmark_hash"]) == 64
    assert found["prompt"]["system"] == "Say the number after the one that is shown."
    assert [message["role"] for message in found["prompt"]["examples"]] == ["user", "assistant"]
    assert found["prompt"]["first_observation"] == "number 1"
    assert found["engine"]["kind"] == "scripted" and "agentloop" in found["versions"] and found["seconds"] > 0
    trees = list(read_trees(folder / "out" / found["results"]["base"]["trees"]))
    assert len(trees) == 20 and found["results"]["base"]["tokens"]["generated"] == sum(len(tree.turns[0].completion_ids) for tree in trees)
    shown = capsys.readouterr().out
    assert re.search(r"success %\s+25\.0 \[\d+\.\d, \d+\.\d\]", shown) and "results.json" in shown


def test_base_and_adapter_play_the_same_tasks_prompts_and_seeds(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(model, "--adapter", "adapter", "--compare-to", "base", "--samples", "2", "--temperature", "0.5") == 0
    found = results(folder / "out")
    assert list(found["results"]) == ["adapter", "base"]
    assert measured(found, "adapter", "success")["value"] == 0.8 and measured(found, "base", "success")["value"] == 0.3
    difference = found["differences"]["adapter - base"]["success"]
    assert difference["value"] == pytest.approx(0.5) and difference["tasks"] == 20 and difference["low"] > 0.2
    assert difference["p_value"] < 0.01
    of_adapter, of_base = (list(read_trees(folder / "out" / "trees" / f"{name}.parquet")) for name in ("adapter", "base"))
    for one, other in zip(of_adapter, of_base, strict=True):
        assert (one.task, one.system_prompt, one.first_observation) == (other.task, other.system_prompt, other.first_observation)
        assert [turn.prompt_ids for turn in one.turns] == [turn.prompt_ids for turn in other.turns]
        assert [turn.draw.seed for turn in one.turns] == [turn.draw.seed for turn in other.turns]
        assert {turn.draw.adapter for turn in other.turns} == {"base"}
    assert found["adapter"]["content_hash"] == found["configuration"]["adapter"]
    assert {turn.draw.adapter for tree in of_adapter for turn in tree.turns} == {found["adapter"]["name"]}
    shown = capsys.readouterr().out
    assert re.search(r"success %\s+80\.0 \[.*\]\s+30\.0 \[.*\]\s+\+50\.0 \[.*\]\s+0\.001", shown), shown


def test_the_same_command_on_a_finished_folder_only_shows_it(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(model) == 0
    first = (folder / "out" / "results.json").read_bytes()
    asked = (folder / "script.asked").read_text()
    capsys.readouterr()
    assert evaluate(model) == 0
    assert (folder / "out" / "results.json").read_bytes() == first and (folder / "script.asked").read_text() == asked
    assert "success" in capsys.readouterr().out


def test_an_evaluation_that_stopped_goes_on_with_the_episodes_that_are_missing(
    folder: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(model, out="whole") == 0
    script = (folder / "script.py").read_text()
    (folder / "script.py").write_text(script.replace("    number =", "    assert request.seed % 3, 'down'\n    number ="))
    assert evaluate(model) == 1
    message = capsys.readouterr().err
    assert "max_failures" in message and "engine.request" in message and "down" in message
    assert not (folder / "out" / "results.json").exists()
    (folder / "script.py").write_text(script)
    (folder / "script.asked").write_text("")
    assert evaluate(model) == 0
    found, whole = results(folder / "out"), results(folder / "whole")
    resumed = found["results"]["base"]["resumed"]
    assert 0 < resumed < 20 and len((folder / "script.asked").read_text().splitlines()) == 20 - resumed
    assert found["results"]["base"]["trees_hash"] == whole["results"]["base"]["trees_hash"]
    assert found["results"]["base"]["measurements"] == whole["results"]["base"]["measurements"]


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = (folder / "script.py").read_text()
    stop = "    import os, signal\n    len(asked.read_text().splitlines()) == 9 and os.kill(os.getpid(), signal.SIGINT)\n    number ="
    (folder / "script.py").write_text(script.replace("    number =", stop))
    assert evaluate(model, "--concurrency", "1") == 130
    message = capsys.readouterr().err
    assert "Ctrl-C" in message and "run the same command again" in message and "Traceback" not in message
    (folder / "script.py").write_text(script)
    assert evaluate(model) == 0
    found = results(folder / "out")["results"]["base"]
    assert 0 < found["resumed"] < 20 and found["measurements"][0]["n"] == 20


def test_broken_episodes_are_shown_apart(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(model, "--option", "broken=3") == 0
    found = results(folder / "out")["results"]["base"]
    assert found["failures"] == {"environment.step": 1} and "no abacus" in found["first_failures"]["environment.step"]
    assert measured(results(folder / "out"), "base", "success")["n"] == 19
    assert measured(results(folder / "out"), "base", "failures")["value"] == 0.05
    assert "base: broken episodes, counted in 'failures' and nowhere else: environment.step 1" in capsys.readouterr().out


def test_the_default_folder_follows_from_the_arguments(folder: Path, model: Path) -> None:
    assert evaluate(model, "--limit", "3", out=None) == 0
    assert evaluate(model, "--limit", "4", out=None) == 0
    first, second = sorted((folder / "evaluations").iterdir())
    assert first.name.startswith("count-test-model-") and {results(found)["configuration"]["limit"] for found in (first, second)} == {3, 4}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--samples", "3"], ["greedy samples of a task are all alike", "--samples 3", "--temperature"]),
        (["--compare-to", "base"], ["nothing to compare", "--adapter DIR"]),
        (["--adapter", "nowhere"], ["nowhere"]),
        (["--option", "frist=3"], ["frist", "did you mean 'first'?"]),
        (["--option", "first"], ["--option takes NAME=VALUE", "'first'"]),
        (["--engine-option", "dtpye=float32"], ["dtpye", "did you mean 'dtype'?"]),
        (["--model", "smolm2-135m"], ["unknown model", "did you mean 'smollm2-135m'?"]),
        (["--split", "tets"], ["tets", "test"]),
        (["--limit", "0"], ["--limit", "0"]),
    ],
)
def test_mistakes_are_told_in_a_line_before_anything_runs(
    folder: Path, model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: list[str]
) -> None:
    assert evaluate(model, *arguments, script="forbidden") == 2
    message = capsys.readouterr().err
    assert all(words in message for words in told), message
    assert "Traceback" not in message and len(message.strip().splitlines()) == 1
    assert not (folder / "out" / "trees").exists()


def test_an_unknown_benchmark_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "textcarft", "--model", "tiny"]) == 2
    assert "did you mean 'textcraft'?" in capsys.readouterr().err


def test_another_evaluation_in_the_same_folder_is_refused_by_what_differs(
    folder: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(model) == 0
    kept = (folder / "out" / "results.json").read_bytes()
    assert evaluate(model, "--temperature", "0.7", "--option", "first=2") == 2
    message = capsys.readouterr().err
    assert "temperature was 0.0 and is now 0.7" in message and "options was {} and is now {'first': 2}" in message and "--out" in message
    assert (folder / "out" / "results.json").read_bytes() == kept
    (folder / "count.py").write_text(ENVIRONMENT + "\n# changed\n")
    assert evaluate(model) == 2
    assert "benchmark_hash" in capsys.readouterr().err


def test_a_split_without_tasks_fails(folder: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(model, "--split", "dev") == 1
    assert "has no dev tasks" in capsys.readouterr().err


@pytest.mark.vllm
def test_an_adapter_on_a_real_server_is_checked_played_and_unloaded(
    folder: Path, tiny_server: TinyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tiny_server.world
    command = ["eval", "./count.py", "--model", str(world.model_path), "--adapter", str(world.versions[0].path), "--compare-to", "base"]
    command += ["--engine", "vllm", "--engine-option", f"url={tiny_server.url}", "--engine-option", "dtype=float32"]
    command += ["--limit", "6", "--max-tokens", "12", "--examples", "1", "--out", "out"]
    assert run(command) == 0

    found = results(folder / "out")
    assert found["engine"]["kind"] == "vllm" and found["adapter"]["content_hash"] == world.versions[0].content_hash
    check = found["adapter"]["check"]
    assert check["mean_error"] < check["bound"] < check["effect"], "the adapter changes more than the check allows to be wrong"
    assert 0.9 < check["share"] < 1.1
    of_adapter, of_base = (list(read_trees(folder / "out" / "trees" / f"{name}.parquet")) for name in ("adapter", "base"))
    assert len(of_adapter) == len(of_base) == 6
    for one, other in zip(of_adapter, of_base, strict=True):
        assert one.turns[0].prompt_ids == other.turns[0].prompt_ids
        assert (one.turns[0].draw.adapter, other.turns[0].draw.adapter) == (found["adapter"]["name"], "base")
    drawn = [[tree.turns[0].completion_ids for tree in trees] for trees in (of_adapter, of_base)]
    assert drawn[0] != drawn[1], "greedy answers of the adapter and of the base are the same, so one of them was served for both"

    with urllib.request.urlopen(f"{tiny_server.url}/v1/models", timeout=10) as answer:
        assert found["adapter"]["name"] not in [card["id"] for card in json.load(answer)["data"]]
    monkeypatch.setattr("agentloop.loop.serving.open_engine", None)
    assert run(command) == 0, "finished, so that no engine is asked again"
