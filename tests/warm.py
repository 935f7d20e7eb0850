"""Processes that begin with their imports done, for tests that start and kill many: the fixture `warm` forks one in milliseconds.

A server process imports torch, TRL and agentloop once and forks a child for every request. Such a child is as real as one that the
interpreter starts: it has a process id, a session and a group of its own, the standard streams and the environment that it is given, and
SIGKILL ends it at any instant. All that it skips is the start of the interpreter and the imports, in which a run writes nothing. How a
process starts otherwise is what tests/loop/test_run.py, tests/cli/ and tests/training/ go through.

The protocol: over a connection to the server go one line of JSON and three file descriptors; back come the child's process id and, at its
end, a byte with its exit code. A connection that closes without that byte was a child's that was killed.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import pytest

from agentloop.training import launch
from agentloop.training.job import TrainingJob

ROOT = Path(__file__).resolve().parent.parent

LOADED = (
    "agentloop.cli.run",
    "agentloop.cli.narrate",
    "agentloop.engine.check",
    "agentloop.engine.scripted",
    "agentloop.loop.runner",
    "agentloop.report.html",
    "agentloop.report.terminal",
    "agentloop.training.grpo",
    "agentloop.training.online",
    "agentloop.training.sft",
    "agentloop.training.worker",
    "matplotlib.backends.backend_svg",
    "scipy.special",
    "transformers.models.llama.modeling_llama",
)
"""What `agentloop run` and the training process import, early or late."""

START_SECONDS = 300.0
"""What the server may take for its imports, and a child for its first sign of life."""

END_SECONDS = 30.0
"""What a process may take to leave once it has ended its work or was killed."""

PID_BYTES = 8


class WarmProcess:
    """A forked child, with those names of `subprocess.Popen` that the launcher and the tests use; they mean the same."""

    def __init__(self, connection: socket.socket, stdin: IO[bytes] | None) -> None:
        self._connection = connection
        self.stdin = stdin
        self.returncode: int | None = None
        connection.settimeout(START_SECONDS)
        self.pid = int.from_bytes(connection.recv(PID_BYTES, socket.MSG_WAITALL), "big")
        assert self.pid, "the server of warm processes is gone"

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._ended(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code. Raises `subprocess.TimeoutExpired`."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(f"warm process {self.pid}", timeout or 0.0)
        return code

    def kill(self) -> None:
        """SIGKILL to this process alone: whatever it started has to notice by itself."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._connection], [], [], timeout)[0]:
            code = self._connection.recv(1)
            self._connection.close()
            self._await_end()
            self.returncode = code[0] if code else -signal.SIGKILL
        return self.returncode

    def _await_end(self) -> None:
        """Until the kernel has taken everything back: the connection may close before a lock that the process held."""
        deadline = time.monotonic() + END_SECONDS
        while _exists(self.pid):
            assert time.monotonic() < deadline, f"waited {END_SECONDS:g} s for warm process {self.pid} to leave"
            time.sleep(0.002)


@dataclass(frozen=True)
class WarmStart:
    """Starts warm processes; a warm process may start others.

    Attributes:
        address: Path of the server's socket.
    """

    address: str

    def run(self, recipe: Path, out: Path) -> WarmProcess:
        """`agentloop run RECIPE --out OUT --quiet`; what it prints is added to `OUT.log`, and its trainings start warm too."""
        words = ["run", str(recipe), "--out", str(out), "--quiet"]
        with self.log(out).open("ab") as log, open(os.devnull, "rb") as nothing:
            return self._start("run_agentloop", [self.address, *words], os.environ, nothing.fileno(), log.fileno())

    @staticmethod
    def log(out: Path) -> Path:
        """Where `run` lets a run in `out` print to."""
        return out.with_name(f"{out.name}.log")

    def train(self, job: TrainingJob, work: Path, log: IO[bytes]) -> WarmProcess:
        """In place of `agentloop.training.launch.start`. Of several processes, which find each other by what torchrun would tell them, the
        first is returned; the others go with it when the pipe closes that all of them read.
        """
        read, write = os.pipe()
        stdin = os.fdopen(write, "wb", 0)
        arguments = [str(work / "job.json"), str(work)]
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(job.processes)}
        try:
            for rank in reversed(range(job.processes)):
                place = meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if job.processes > 1 else {}
                environment = {**launch.environment(job), **place}
                function = "run_worker" if job.distribution == "ddp" else "run_sharded_worker"
                process = self._start(function, arguments, environment, read, log.fileno(), stdin=None if rank else stdin)
            return process
        finally:
            os.close(read)

    def _start(
        self, function: str, arguments: Sequence[str], environment: Mapping[str, str], read: int, write: int, stdin: IO[bytes] | None = None
    ) -> WarmProcess:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address)
        request = json.dumps({"function": function, "arguments": arguments, "environment": dict(environment)})
        socket.send_fds(connection, [b"+"], [read, write, write])
        connection.sendall(request.encode() + b"\n")
        return WarmProcess(connection, stdin)


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmStart]:
    """The server of warm processes, started once a session."""
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        address, log = f"{folder}/socket", Path(folder) / "log.txt"
        command = [sys.executable, "-m", "tests.warm", address]
        # As the launcher sets it for a training: some of it is read while torch and the hub's library are imported.
        environment = launch.environment(TrainingJob(model="any", rows=("any",), output="any"))
        with log.open("wb") as words:
            server = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words, start_new_session=True
            )
        assert server.stdin is not None and server.stdout is not None
        try:
            heard, _, _ = select.select([server.stdout], [], [], START_SECONDS)
            assert heard, f"waited {START_SECONDS:g} s for the server of warm processes to import what it forks\n{log.read_text()}"
            assert server.stdout.readline() == b"ready\n", f"the server of warm processes did not start\n{log.read_text()}"
            yield WarmStart(address)
        finally:
            server.stdin.close()
            server.wait(timeout=END_SECONDS)
            server.stdout.close()


@pytest.fixture(scope="module")
def warm_training(warm: WarmStart) -> Iterator[None]:
    """Trainings that the process of this module's tests launches start warm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "start", warm.train)
        yield


def serve(address: str) -> None:
    """Fork a child for every request until standard input closes."""
    for name in LOADED:
        importlib.import_module(name)
    assert threading.active_count() == 1, "an import started a thread, which children would be without"
    gc.freeze()  # so that a child's first collection does not copy every page
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the children; their exit codes come over the connection
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            heard, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in heard:
                return
            connection, _ = listener.accept()
            _, streams, _, _ = socket.recv_fds(connection, 1, 3)
            if os.fork() == 0:
                listener.close()
                _become(connection, streams)
            connection.close()
            for stream in streams:
                os.close(stream)


def _become(connection: socket.socket, streams: Sequence[int]) -> NoReturn:
    """In the child: be the process that was asked for, and leave."""
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with connection.makefile("r") as lines:
            request = json.loads(lines.readline())
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.clear()
        os.environ.update(request["environment"])
        connection.sendall(os.getpid().to_bytes(PID_BYTES, "big"))
        code = FUNCTIONS[request["function"]](*request["arguments"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(bytes([code]))
        os._exit(code)


def _run_agentloop(address: str, *words: str) -> int:
    from agentloop.cli.main import run

    launch.start = WarmStart(address).train
    return run(words)


def _run_worker(*arguments: str) -> int:
    import torch

    from agentloop.training.worker import main

    threads = int(os.environ["OMP_NUM_THREADS"])
    if torch.get_num_threads() != threads:  # read when torch was imported
        torch.set_num_threads(threads)
    return main(list(arguments))


def _run_sharded_worker(*arguments: str) -> int:
    """As `_run_worker`, in a process that accelerate takes for one with an accelerator: of processors it would not let FSDP divide a model
    among them, though PyTorch can.
    """
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType
    from torch.distributed.tensor import DTensor

    from agentloop.training.checkpointed_trainer import CheckpointedTrainer

    begin, train = PartialState.__init__, CheckpointedTrainer.train_on

    def as_if_accelerated(self: PartialState, *words: object, **more: object) -> None:
        begin(self, *words, **more)
        if self._shared_state.get("distributed_type") == DistributedType.MULTI_CPU:
            self._shared_state["distributed_type"] = DistributedType.MULTI_GPU

    def checked(self: CheckpointedTrainer) -> dict[str, object]:
        told = train(self)
        parameters = list(self.model.parameters())
        assert all(isinstance(parameter, DTensor) for parameter in parameters), "the whole model was divided"
        return told | {"divided": len(parameters)}

    PartialState.__init__ = as_if_accelerated
    CheckpointedTrainer.train_on = checked
    return _run_worker(*arguments)


FUNCTIONS: dict[str, Callable[..., int]] = {
    "run_agentloop": _run_agentloop,
    "run_worker": _run_worker,
    "run_sharded_worker": _run_sharded_worker,
}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    serve(sys.argv[1])
