"""`train(job)`: run a training in processes of its own and give back what it did.

The processes are a group that is killed when the training takes too long, is cancelled, or when this process dies, however it dies.
What they print is kept in `log.txt`; its tail and the cause of the exit are in the error. The same job in the same work folder goes on from
the last checkpoint of a training that died. Importing this module imports no torch.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from agentloop.errors import Mistake, RunFailed, WaitedTooLong
from agentloop.training import checkpoint, distribution, registry
from agentloop.training.job import Trained, TrainingJob

POLL_SECONDS = 0.1
TAIL_LINES = 25
KILLED_WORKER = "(SIGKILL) received by PID"
"""What torchrun says of a worker that was killed, before it ends with status 1 itself."""

Watcher = Callable[[dict[str, Any]], None]


def train(
    job: TrainingJob, *, work_dir: Path | str | None = None, on_progress: Watcher | None = None, cancel: threading.Event | None = None
) -> Trained:
    """Train the adapter that `job` describes; blocks until it is on disk.

    Args:
        job: What to train.
        work_dir: Where `job.json`, `log.txt`, `progress.jsonl` and `result.json` go; by default `OUTPUT-training` beside the output.
        on_progress: Called with each new record of `progress.jsonl`.
        cancel: When set, the training is killed and `RunFailed` raised within a second.

    Raises:
        Mistake: The job cannot be done as it is asked.
        WaitedTooLong: It took longer than `job.timeout`.
        RunFailed: It failed; says how the process ended and the last lines of its log.
    """
    registry.check(job.method)
    distribution.check(job.distribution)
    output = Path(job.output).absolute()
    if output.exists():
        raise Mistake("the adapter's folder exists already", file=str(output))
    work = Path(work_dir).absolute() if work_dir is not None else output.with_name(f"{output.name}-training")
    work.mkdir(parents=True, exist_ok=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    _clear(work, job)
    (work / "job.json").write_text(job.to_json())
    ooms, began = _out_of_memory_kills(), time.monotonic()
    with (work / "log.txt").open("wb") as log:
        process = start(job, work, log)
        try:
            _wait(process, job, work, on_progress, cancel)
        finally:
            _end(process)
    if process.returncode == 0 and (work / "result.json").is_file():
        trained = Trained.from_json((work / "result.json").read_text())
        shutil.rmtree(work / checkpoint.FOLDER, ignore_errors=True)
        return replace(trained, startup_seconds=time.monotonic() - began - trained.seconds)
    raise _failure(process.returncode, work, killed_for_memory=_out_of_memory_kills() > ooms)


def _clear(work: Path, job: TrainingJob) -> None:
    """Remove what an earlier try left, but for the whole checkpoints of the same job and the progress that led to them."""
    for earlier in [work / "result.json", work / "error.json", *work.glob(".*.partial")]:
        earlier.unlink(missing_ok=True)
    described = work / "job.json"
    if described.is_file() and described.read_text() == job.to_json():
        checkpoint.remove_halves(work / checkpoint.FOLDER)
    else:
        shutil.rmtree(work / checkpoint.FOLDER, ignore_errors=True)
    if checkpoint.last_checkpoint(work / checkpoint.FOLDER) is None:
        (work / "progress.jsonl").unlink(missing_ok=True)


def start(job: TrainingJob, work: Path, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start the processes, a group that prints to `log` and ends when the pipe on its standard input closes."""
    return subprocess.Popen(
        command(job, work), stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment(job), start_new_session=True
    )


def command(job: TrainingJob, work: Path) -> list[str]:
    """The worker alone, under torchrun (`accelerate launch --cpu` was seen to start one process where two were asked for), or under
    accelerate's launcher where more than rows is divided.
    """
    worker = ["-m", "agentloop.training.worker", str(work / "job.json"), str(work)]
    config = distribution.config_of(job.distribution)
    if config is not None:
        launcher = ["-m", "accelerate.commands.launch", "--config_file", str(config), "--num_processes", str(job.processes)]
        return [sys.executable, *launcher, *worker]
    if job.processes == 1:
        return [sys.executable, *worker]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={job.processes}", *worker]


def environment(job: TrainingJob) -> Mapping[str, str]:
    """This process' environment and what the worker needs: no hub, no reporting, the cores divided among the processes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = job.threads if job.threads is not None else max(1, cores // job.processes)
    values = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
    }
    if job.device == "cpu":
        values["CUDA_VISIBLE_DEVICES"] = ""
    if job.device == "cpu" or not os.path.exists("/dev/nvidia0"):
        values["ACCELERATE_USE_CPU"] = "1"
    package_root = str(Path(__file__).resolve().parents[2])
    paths = [package_root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **values, "PYTHONPATH": os.pathsep.join(paths)}


def _wait(
    process: subprocess.Popen[bytes], job: TrainingJob, work: Path, on_progress: Watcher | None, cancel: threading.Event | None
) -> None:
    began, read = time.monotonic(), 0
    while True:
        ended = process.poll() is not None
        if on_progress is not None:
            read = _report(work / "progress.jsonl", read, on_progress)
        if ended:
            return
        if cancel is not None and cancel.is_set():
            raise RunFailed("the training was cancelled; nothing of it is kept")
        if time.monotonic() - began > job.timeout:
            raise WaitedTooLong(f"the training of {job.output}", job.timeout, f"its log is {work / 'log.txt'}")
        time.sleep(POLL_SECONDS)


def _report(path: Path, read: int, on_progress: Watcher) -> int:
    """Hand out whole new lines from byte `read` on; returns where the next ones begin."""
    if not path.exists():
        return read
    with path.open("rb") as file:
        file.seek(read)
        fresh = file.read()
    whole = fresh[: fresh.rfind(b"\n") + 1]
    for line in whole.splitlines():
        on_progress(json.loads(line))
    return read + len(whole)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill whatever is left of the group; workers under torchrun are in sessions of their own and follow when their standard input
    closes.
    """
    if process.stdin is not None:
        process.stdin.close()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    process.wait(timeout=30)


def _failure(status: int, work: Path, *, killed_for_memory: bool) -> RunFailed | Mistake:
    error = work / "error.json"
    if error.is_file():
        found = json.loads(error.read_text())
        return Mistake(found["message"]) if found["kind"] == "mistake" else RunFailed(found["message"])
    with (work / "log.txt").open(errors="replace") as lines:
        tail = "".join(deque(lines, maxlen=TAIL_LINES)).strip()
    return RunFailed(f"the training process {_cause(status, tail, killed_for_memory)}; the end of its log, {work / 'log.txt'}:\n{tail}")


def _cause(status: int, tail: str, killed_for_memory: bool) -> str:
    smaller = "; a smaller batch_size, more gradient_accumulation or gradient_checkpointing needs less"
    if killed_for_memory or "OutOfMemoryError" in tail or "MemoryError" in tail or "can't allocate memory" in tail:
        return f"ran out of memory{smaller}"
    if "No space left on device" in tail or "Disk quota exceeded" in tail:
        return "found no space left on the disk; everything finished before is kept: free some space and run the same command again"
    if status == -signal.SIGKILL or KILLED_WORKER in tail:
        return f"was killed (SIGKILL), as systems do when memory runs out{smaller}"
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}" if status else "ended without a result"


def _out_of_memory_kills() -> int:
    """How often the kernel killed in this control group for lack of memory; 0 where that cannot be read."""
    try:
        events = Path("/sys/fs/cgroup/memory.events").read_text().split()
        return int(events[events.index("oom_kill") + 1])
    except (OSError, ValueError, IndexError):
        return 0
