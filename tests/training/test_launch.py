"""What `train` makes of its process: its answer, the causes of its failures, and that it never outlives its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentloop.errors import Mistake, RunFailed, WaitedTooLong
from agentloop.training import launch
from agentloop.training.job import Trained, TrainingJob

RESULT = Trained("adapter", 2, 8, 0, 40, 80, 90, 2.0, 1.0, 0.5, 0.0, 1)


def job(tmp_path: Path, **changes: object) -> TrainingJob:
    return TrainingJob(**{"model": "m", "rows": ("r",), "output": str(tmp_path / "adapter"), "timeout": 60.0, **changes})  # type: ignore[arg-type]


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let the training process be this script; `work` is its work folder."""

    def use(script: str) -> None:
        def command(_job: TrainingJob, work: Path) -> list[str]:
            return [
                sys.executable,
                "-c",
                f"import json, os, pathlib, signal, sys, time\nwork = pathlib.Path({str(work)!r})\n{textwrap.dedent(script)}",
            ]

        monkeypatch.setattr(launch, "command", command)

    return use


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def test_the_result_and_each_record_of_progress_come_back(tmp_path: Path, child: Callable[[str], None]):
    child(f"""
        with (work / "progress.jsonl").open("a") as file:
            for step in (1, 2):
                file.write(json.dumps({{"step": step}})[:5]); file.flush(); time.sleep(0.3)
                file.write(json.dumps({{"step": step}})[5:] + chr(10)); file.flush()
        (work / "result.json").write_text({RESULT.to_json()!r})
    """)
    seen: list[dict[str, object]] = []
    trained = launch.train(job(tmp_path), on_progress=seen.append)
    assert seen == [{"step": 1}, {"step": 2}], "a line that is half written is not read"
    assert trained.loss_last == RESULT.loss_last and trained.startup_seconds > 0
    assert TrainingJob.from_json((tmp_path / "adapter-training" / "job.json").read_text()) == job(tmp_path)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed (SIGKILL), as systems do when memory runs out; a smaller batch_size"),
        (
            "print('Signal 9 (SIGKILL) received by PID 7'); sys.exit(1)  # as torchrun ends when a worker is killed",
            "was killed (SIGKILL), as systems do when memory runs out",
        ),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("print('torch.OutOfMemoryError: CUDA out of memory'); sys.exit(1)", "ran out of memory; a smaller batch_size"),
        ("raise OSError(28, 'No space left on device')", "found no space left on the disk; everything finished before is kept"),
        ("print('the last words', file=sys.stderr); sys.exit(3)", "ended with status 3"),
        ("print('nothing to say')", "ended without a result"),
    ],
)
def test_a_failure_says_how_the_process_ended_and_shows_the_end_of_its_log(
    tmp_path: Path, child: Callable[[str], None], script: str, message: str
):
    child(f"print('a line of the log', flush=True)\n{script}")
    with pytest.raises(RunFailed) as failed:
        launch.train(job(tmp_path))
    assert message in str(failed.value) and "a line of the log" in str(failed.value) and "log.txt" in str(failed.value)


@pytest.mark.parametrize(("kind", "error"), [("mistake", Mistake), ("failed", RunFailed)])
def test_errors_that_a_user_can_be_told_come_back_as_they_were_raised(
    tmp_path: Path, child: Callable[[str], None], kind: str, error: type[Exception]
):
    child(f"(work / 'error.json').write_text(json.dumps({{'kind': {kind!r}, 'message': 'max_length is too small'}})); sys.exit(2)")
    with pytest.raises(error) as raised:
        launch.train(job(tmp_path))
    assert str(raised.value) == "max_length is too small" and type(raised.value) is error


def test_an_answer_of_an_earlier_try_is_not_taken_for_this_ones(tmp_path: Path, child: Callable[[str], None]):
    work = tmp_path / "work"
    work.mkdir()
    (work / "result.json").write_text(RESULT.to_json())
    child("pass")
    with pytest.raises(RunFailed, match="without a result"):
        launch.train(job(tmp_path), work_dir=work)


def test_a_training_that_hangs_is_killed_at_its_timeout(tmp_path: Path, child: Callable[[str], None]):
    child("(work / 'pid').write_text(str(os.getpid())); time.sleep(300)")
    with pytest.raises(WaitedTooLong, match=r"waited 2 s for the training of .*adapter.*log\.txt"):
        launch.train(job(tmp_path, timeout=2.0))
    assert gone_within(int((tmp_path / "adapter-training" / "pid").read_text()), 5)


def test_a_cancelled_training_is_killed_with_its_children(tmp_path: Path, child: Callable[[str], None]):
    child("""
        import subprocess
        inner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
        (work / "pid").write_text(str(inner.pid))
        time.sleep(300)
    """)
    cancel, pid = threading.Event(), tmp_path / "adapter-training" / "pid"

    def when_started() -> None:
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.05)
        cancel.set()

    threading.Thread(target=when_started, daemon=True).start()
    with pytest.raises(RunFailed, match="cancelled"):
        launch.train(job(tmp_path), cancel=cancel)
    assert gone_within(int(pid.read_text()), 5)


def test_an_adapter_that_exists_is_not_overwritten(tmp_path: Path):
    (tmp_path / "adapter").mkdir()
    with pytest.raises(Mistake, match="exists already"):
        launch.train(job(tmp_path))


def processes_with(text: str) -> list[int]:
    """Ids of the processes whose command line holds the text."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text in (entry / "cmdline").read_text() and alive(int(entry.name)):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize(("processes", "expected"), [(1, 1), pytest.param(2, 3, marks=pytest.mark.slow)])
def test_a_training_dies_with_its_parent(tmp_path: Path, processes: int, expected: int):
    """Workers that wait for their job (a pipe without a writer), alone or under torchrun, and a parent that is killed."""
    job_file = tmp_path / "job.json"
    os.mkfifo(job_file)
    command = launch.command(job(tmp_path, processes=processes), tmp_path)
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            f"subprocess.Popen({command!r}, stdin=subprocess.PIPE, start_new_session=True)\n"
            "time.sleep(300)  # the mark of the parent",
        ],
        cwd=Path(launch.__file__).parents[2],
    )

    def workers() -> list[int]:
        return [pid for pid in processes_with(str(job_file)) if pid != parent.pid]

    deadline = time.monotonic() + 120
    while len(workers()) < expected and time.monotonic() < deadline:
        assert parent.poll() is None
        time.sleep(0.1)
    started = workers()
    assert len(started) == expected, "the worker, or torchrun and its workers"
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert all(gone_within(pid, 120) for pid in started)


def test_several_processes_run_under_torchrun_with_the_cores_divided(tmp_path: Path):
    two = job(tmp_path, processes=2, device="cpu")
    assert "torch.distributed.run" in launch.command(two, tmp_path) and "--nproc-per-node=2" in launch.command(two, tmp_path)
    values = launch.environment(two)
    cores = len(os.sched_getaffinity(0))
    assert values["ACCELERATE_USE_CPU"] == "1" and values["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    assert values["HF_HUB_OFFLINE"] == "1"
    assert launch.environment(job(tmp_path, threads=3))["OMP_NUM_THREADS"] == "3"


def test_the_worker_writes_what_a_user_can_be_told(tmp_path: Path):
    from agentloop.training import worker

    (tmp_path / "job.json").write_text(job(tmp_path, method="sftt").to_json())
    # `run` and not `main`, which would kill this test's whole process group as soon as standard input ends.
    assert worker.run(tmp_path / "job.json", tmp_path) == 2
    found = json.loads((tmp_path / "error.json").read_text())
    assert found["kind"] == "mistake" and "did you mean 'sft'" in found["message"]
