"""Folders in the cache appear whole, once, whoever asks at the same time and whatever is killed."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path

import filelock
import pytest

from agentloop.errors import WaitedTooLong
from agentloop.model.cache import cache_dir, cached_folder, make_once


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGENTLOOP_CACHE", str(tmp_path))
    return tmp_path


def test_the_environment_says_where_the_cache_is(own_cache: Path) -> None:
    assert cache_dir() == own_cache
    assert cached_folder("m") == own_cache / "models" / "m"


def test_a_folder_is_made_once() -> None:
    made = []

    def make(target: Path) -> None:
        made.append(target)
        (target / "file").write_text("x")

    first, second = make_once("m", make), make_once("m", make)
    assert first == second == cached_folder("m")
    assert len(made) == 1 and made[0] != first
    assert (first / "file").read_text() == "x"


def test_a_failure_leaves_nothing_and_the_next_try_succeeds() -> None:
    def fail(target: Path) -> None:
        (target / "half").write_text("x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        make_once("m", fail)
    assert [path.name for path in cached_folder("m").parent.iterdir()] == [".m.lock"]
    assert make_once("m", lambda target: None).is_dir()


def test_what_a_killed_process_left_is_cleared_away() -> None:
    leftover = cached_folder("m").parent / ".m.making-dead"
    leftover.mkdir(parents=True)
    make_once("m", lambda target: None)
    assert not leftover.exists()


def slow_make(target: Path) -> None:
    (target / "maker").write_text(str(multiprocessing.current_process().pid))
    time.sleep(0.3)


def ask(answers: multiprocessing.Queue[str]) -> None:
    answers.put((make_once("m", slow_make) / "maker").read_text())


def test_two_processes_at_once_get_the_same_folder() -> None:
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[str] = context.Queue()
    processes = [context.Process(target=ask, args=(answers,)) for _ in range(3)]
    for process in processes:
        process.start()
    makers = {answers.get(timeout=30) for _ in processes}
    for process in processes:
        process.join(timeout=30)
    assert len(makers) == 1


def test_waiting_for_another_process_ends_and_says_for_what(own_cache: Path) -> None:
    (own_cache / "models").mkdir()
    with filelock.FileLock(own_cache / "models" / ".m.lock"), pytest.raises(WaitedTooLong) as caught:
        make_once("m", lambda target: None, timeout=0.05)
    assert str(cached_folder("m")) in str(caught.value) and ".m.lock" in str(caught.value)
