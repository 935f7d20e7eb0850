"""Artifacts appear whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentloop.errors import RunFailed
from agentloop.run.artifact import new_artifact, write_json, write_text


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "folder" / "a.txt"
    with new_artifact(final) as partial:
        partial.write_text("whole")
        assert not final.exists()
    assert final.read_text() == "whole"
    assert [path.name for path in final.parent.iterdir()] == ["a.txt"]


def test_a_failure_leaves_the_old_artifact_and_no_partial(tmp_path: Path) -> None:
    final = tmp_path / "a.txt"
    write_text(final, "old")
    with pytest.raises(ZeroDivisionError), new_artifact(final) as partial:
        partial.write_text("half")
        1 / 0  # noqa: B018
    assert final.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_folder_replaces_an_older_one(tmp_path: Path) -> None:
    final = tmp_path / "adapter"
    for name in ("old", "new"):
        with new_artifact(final) as partial:
            (partial / "sub").mkdir(parents=True)
            (partial / "sub" / name).write_text(name)
    assert [path.name for path in (final / "sub").iterdir()] == ["new"]


def test_a_partial_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    final = tmp_path / "a.txt"
    program = (
        "import os, signal\nfrom pathlib import Path\nfrom agentloop.run.artifact import new_artifact\n"
        f"with new_artifact(Path({str(final)!r})) as partial:\n    partial.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == ["a.txt.partial"]
    write_text(final, "whole")
    assert os.listdir(tmp_path) == ["a.txt"]
    assert final.read_text() == "whole"


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    final = tmp_path / "a.json"
    write_json(final, {"kept": True})
    message = r"no space left on the disk while writing .*a\.json .*run the same command again"
    with pytest.raises(RunFailed, match=message), new_artifact(final):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert json.loads(final.read_text()) == {"kept": True}
