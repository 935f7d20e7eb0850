"""The training process: `python -m agentloop.training.worker JOB.json WORK_DIR`, started by `launch.train`, alone or under torchrun.

The environment is set before torch is imported. The answer is `WORK_DIR/result.json`, or `WORK_DIR/error.json` where the cause is one
that a user can be told. Standard input is a pipe that the parent holds: when it closes, the parent is gone, and this process goes too,
with its group.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

from agentloop.errors import AgentloopError, Mistake
from agentloop.training.job import TrainingJob


def main(arguments: list[str]) -> int:
    """Run the job as long as the parent holds standard input; the whole process group is killed when it does not."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    job_path, work_dir = map(Path, arguments)
    return run(job_path, work_dir)


def run(job_path: Path, work_dir: Path) -> int:
    """Run the job; returns 0, or the exit code of the error that `error.json` describes."""
    job = TrainingJob.from_json(job_path.read_text())
    from agentloop.training import registry  # the environment is the launcher's by now

    try:
        trained = registry.find(job.method)(job, work_dir)
    except AgentloopError as error:
        kind = "mistake" if isinstance(error, Mistake) else "failed"
        _write(work_dir / "error.json", json.dumps({"kind": kind, "message": str(error)}))
        return error.exit_code
    if os.environ.get("RANK", "0") == "0":
        _write(work_dir / "result.json", trained.to_json())
    return 0


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text)
    os.replace(partial, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
