"""`make setup` decides by what the machine says, passes pip's places on to uv, and does nothing while nothing changed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ci_{name}", ROOT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Machine:
    """Stands in for the commands that set-up runs: keeps them, and fails those that are told to."""

    def __init__(self, setup: ModuleType, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.commands: list[str] = []
        self.environments: dict[str, dict[str, str]] = {}
        self.failing: list[str] = []
        self.settings: dict[str, list[str]] = {}
        for name in ("pyproject.toml", "setup.py"):
            (root / name).write_text(name)
        monkeypatch.setattr(setup, "ROOT", root)
        monkeypatch.setattr(setup, "__file__", str(root / "setup.py"))
        monkeypatch.setattr(setup, "VENV", root / ".venv")
        monkeypatch.setattr(setup, "STAMP", root / ".venv" / "stamp")
        monkeypatch.setattr(setup, "PYTHON", root / ".venv" / "python")
        monkeypatch.setattr(setup, "run", self.run)
        monkeypatch.setattr(setup, "pip_settings", lambda: self.settings)
        monkeypatch.setattr(setup.sys, "platform", "linux")
        monkeypatch.delenv("AGENTLOOP_SETUP", raising=False)
        self.root = root

    def run(self, command: Sequence[Any], **options: Any) -> bool:
        text = " ".join(map(str, command))
        self.commands.append(text)
        self.environments[text] = dict(options.get("environment") or os.environ)
        if "-m venv" in text:
            (self.root / ".venv").mkdir(exist_ok=True)
            (self.root / ".venv" / "python").write_text("")
        return not any(word in text for word in self.failing)

    def last(self, word: str) -> str:
        return [command for command in self.commands if word in command][-1]


@pytest.fixture
def setup() -> ModuleType:
    return load("setup")


@pytest.fixture
def machine(setup: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    monkeypatch.setattr(setup, "has_cuda_device", lambda: False)
    return Machine(setup, monkeypatch, tmp_path)


def test_a_machine_without_a_device_gets_the_cpu_set_without_what_needs_cuda(setup: ModuleType, machine: Machine) -> None:
    assert setup.main() == 0
    assert machine.last("--editable").endswith(f"--editable {machine.root}[cpu,dev]")
    overrides = (machine.root / ".venv" / "overrides.txt").read_text().split()
    assert [word for word in overrides if word.startswith("torch")] == ["torchvision;", "torchaudio;", "torchcodec;"]


def test_a_machine_with_a_cuda_device_gets_the_gpu_set(setup: ModuleType, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "has_cuda_device", lambda: True)
    assert setup.main() == 0
    assert machine.last("--editable").endswith("[gpu,dev]")
    assert (machine.root / ".venv" / "overrides.txt").read_text() == ""
    assert "--torch-backend" not in machine.last("--editable")


def test_where_pip_has_no_cpu_build_of_torch_pytorchs_own_index_is_asked(setup: ModuleType, machine: Machine) -> None:
    assert setup.main() == 0
    assert "--torch-backend" not in machine.last("--editable")
    (machine.root / ".venv" / "stamp").unlink()
    machine.failing = ["--dry-run"]
    assert setup.main() == 0
    assert "--torch-backend cpu" in machine.last("--editable")


def test_without_uv_pip_installs_and_takes_away_what_needs_cuda(setup: ModuleType, machine: Machine) -> None:
    machine.failing = [setup.UV, "--dry-run"]
    assert setup.main() == 0
    assert f"-m pip install --extra-index-url {setup.TORCH_CPU_INDEX} --editable" in machine.last("--editable")
    assert machine.last("uninstall").endswith("uninstall --quiet --yes torchvision torchaudio torchcodec")


def test_what_training_and_serving_load_is_compiled_though_the_environment_forbids_it(
    setup: ModuleType, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert setup.main() == 0
    for package in ("trl", "vllm"):
        program = machine.last(f"import {package}")
        assert machine.commands.index(program) > machine.commands.index(machine.last("--editable"))
        assert "PYTHONDONTWRITEBYTECODE" not in machine.environments[program]
    machine.failing = ["import"]
    (machine.root / ".venv" / "stamp").unlink()
    assert setup.main() == 0, "a package that does not import is the doctor's to report"


def test_what_make_starts_keeps_its_bytecode(tmp_path: Path) -> None:
    """Without it, each of a suite's hundred processes compiles torch anew."""
    seen = tmp_path / "seen"
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\n[ "$1" = -c ] || echo "[$PYTHONDONTWRITEBYTECODE]" > {seen}\n')
    python.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHON", None)
    subprocess.run(["make", "setup"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert seen.read_text() == "[]\n"


def test_nothing_is_done_while_nothing_changed(setup: ModuleType, machine: Machine) -> None:
    assert setup.main() == 0
    machine.commands.clear()
    assert setup.main() == 0
    assert machine.commands == []
    (machine.root / "pyproject.toml").write_text("changed")
    assert setup.main() == 0
    assert any("--editable" in command for command in machine.commands)


def test_a_failed_installation_is_said_and_tried_again_next_time(
    setup: ModuleType, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.failing = ["--editable"]
    assert setup.main() == 1
    assert "the packages could not be installed" in capsys.readouterr().err
    machine.failing = []
    assert setup.main() == 0


def test_a_python_that_cannot_make_environments_is_told_what_to_install(
    setup: ModuleType, machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.failing = ["-m venv"]
    assert setup.main() == 1
    assert f"sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv" in capsys.readouterr().err


def test_an_unknown_choice_is_refused(
    setup: ModuleType, machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTLOOP_SETUP", "tpu")
    assert setup.main() == 1
    assert "AGENTLOOP_SETUP=tpu: expected cpu or gpu" in capsys.readouterr().err
    assert machine.commands == []


def test_pips_folders_indexes_and_certificate_are_passed_on(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    listing = (
        ":env:.find-links='/env/wheels'\n"
        "global.cert='/etc/ca.crt'\n"
        "global.extra-index-url='file:///mirror/simple https://other.invalid/simple'\n"
        "global.index-url='https://first.invalid/simple'\n"
        "install.find-links='/opt/wheels\\n/more/wheels'\n"
        "list.format='columns'\n"
    )
    settings = setup.parse_pip_settings(listing)
    assert settings["find-links"] == ["/opt/wheels", "/more/wheels", "/env/wheels"]
    assert "format" not in settings
    arguments = " ".join(setup.uv_arguments(settings))
    assert "--find-links /opt/wheels --find-links /more/wheels --find-links /env/wheels" in arguments
    assert "--default-index https://first.invalid/simple" in arguments
    assert "--index https://other.invalid/simple" in arguments and "file:///" not in arguments
    assert setup.uv_environment(settings)["SSL_CERT_FILE"] == "/etc/ca.crt"
    assert setup.uv_arguments({}) == []


def test_make_says_which_python_it_needs(tmp_path: Path) -> None:
    """With only an old Python on the path, make stops with one message that says what to do."""
    for name in ("python3", "python", "python3.11", "python3.12", "python3.13", "python3.14"):
        fake = tmp_path / name
        fake.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
        fake.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin"}
    environment.pop("PYTHON", None)
    done = subprocess.run(["make", "setup"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "agentloop needs Python 3.11 or newer; found: Python 3.9.2" in done.stderr
    assert "make setup PYTHON=" in done.stderr


def test_the_count_of_tests_is_read_from_pytests_own_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\n"
        "def test_a(): pass\ndef test_b(): pass\ndef test_c(): assert False\n"
        "def test_d(missing): pass\n\n@pytest.mark.skip\ndef test_e(): pass\n"
    )
    results = tmp_path / "results.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "-p", "no:cacheprovider", str(tmp_path), f"--junit-xml={results}"]
    subprocess.run(command, capture_output=True, timeout=60, check=False)
    counting = load("count")
    assert counting.main(str(results)) == 0
    assert capsys.readouterr().out == "2 passed, 2 failed, 1 skipped\n"
    assert counting.main(str(tmp_path / "missing.xml")) == 0
    assert capsys.readouterr().out == "0 passed, 1 failed, 0 skipped\n"


def test_a_run_without_tests_has_failed() -> None:
    counting = load("count")
    assert counting.count('<testsuites><testsuite tests="0" failures="0" errors="0" skipped="0"/></testsuites>') == (0, 0, 0)
