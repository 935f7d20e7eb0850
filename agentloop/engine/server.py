"""A vLLM server of our own: started, watched, started again after a crash, and ended with its whole process group.

Invariants: the port is reserved before the server starts and stays reserved until `close`, so that nobody else can take it and the
address survives a restart; whatever the server prints is in one log file whose tail is in every error; no process outlives this one,
SIGKILL included (`watchdog.py`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from agentloop.engine import watchdog
from agentloop.engine.base import EngineFailure
from agentloop.engine.diagnosis import last_lines, why_it_died
from agentloop.engine.launch import Machine, lay_plugin, server_command, server_environment
from agentloop.engine.settings import EngineSettings
from agentloop.engine.vllm_plugin import ACTIVE
from agentloop.errors import Mistake

LOG_NAME = "vllm.log"


class VLLMServer:
    """One vLLM server process on this machine. Not bound to an event loop.

    Args:
        settings: See `EngineSettings`.
        model_path: Folder of the model.
        adapters: Roles with an adapter, which decides the number of slots.
        work_dir: Where the log file goes; made if missing.
        environment: Further environment variables of the server.
    """

    def __init__(
        self,
        settings: EngineSettings,
        model_path: Path,
        *,
        adapters: int,
        work_dir: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not (model_path / "config.json").is_file():
            raise Mistake(
                "not a model folder: it has no config.json", found=str(model_path), expected="a folder with config.json and safetensors"
            )
        self.settings = settings
        self.model_path = model_path
        self.adapters = adapters
        self._environment = {**os.environ, **(environment or {})}
        self.log_path = work_dir / LOG_NAME
        self.starts = 0
        """How often the process was started; a change means that loaded adapters are gone."""
        self.slots_stick = False
        """Whether the spare slot must stay empty for right answers: a CPU where vLLM's own LoRA operations are in use."""
        self._process: subprocess.Popen[bytes] | None = None
        self._reservation: socket.socket | None = None
        self._log_offset = 0
        self._mended = 0
        self._closed = False

    @property
    def url(self) -> str:
        """Address, without a slash at its end; valid after `start`."""
        assert self._reservation is not None, "the server was not started"
        return f"http://127.0.0.1:{self._reservation.getsockname()[1]}"

    @property
    def alive(self) -> bool:
        """Whether the process runs (it may still be loading the model)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the watchdog, which is the id of the process group too."""
        assert self._process is not None, "the server was not started"
        return self._process.pid

    async def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            EngineFailure: Kinds "port", "memory", "context", "request", "crash", "timeout", each with the cause and the end of the log.
            Mistake: The interpreter has no vLLM.
        """
        if self._reservation is None:
            self._reservation = reserve_port(self.settings.port)
        machine = Machine.here()
        command = server_command(
            self.settings, self.model_path, adapters=self.adapters, port=self._reservation.getsockname()[1], machine=machine
        )
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            log.write(f"\n--- start {self.starts + 1}: {' '.join(command)}\n".encode())
            log.flush()
            self._log_offset = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-S", watchdog.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=server_environment(self.settings, machine, self._environment, plugin=lay_plugin(self.log_path.parent)),
                start_new_session=True,
            )
        self.starts += 1
        self._closed = False
        try:
            await self._wait_until_it_answers()
        except BaseException:
            self._end_group()
            raise

    async def restart(self) -> None:
        """Start again after a crash. Raises `EngineFailure` of kind "crash" when `settings.restarts` are used up."""
        if self._closed:
            raise EngineFailure("crash", "the vLLM server was closed")
        if self._mended >= self.settings.restarts:
            died = f"the vLLM server died and was started again {self._mended} times, which is all that engine.restarts allows"
            raise EngineFailure("crash", f"{died}; {self._cause()}")
        self._mended += 1
        await asyncio.to_thread(self._end_group)
        await self.start()

    async def settle(self, seconds: float = 10.0) -> None:
        """After a connection broke: wait until it is clear whether the process has died or answers. Says nothing; `alive` does."""
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline and not await asyncio.to_thread(_healthy, self.url):
            await asyncio.sleep(0.05)

    async def recycle(self) -> None:
        """Start afresh on purpose, to empty the adapter slots; not counted as a crash."""
        await asyncio.to_thread(self._end_group)
        await self.start()

    async def close(self) -> None:
        """End the process group and give the port back; idempotent."""
        self._closed = True
        await asyncio.to_thread(self._end_group)
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None

    def tail(self) -> str:
        """The end of the log, ready to be put at the end of a message."""
        return f"\n--- end of {self.log_path}:\n{last_lines(self.log_path, self._log_offset)}"

    async def _wait_until_it_answers(self) -> None:
        started = time.monotonic()
        while time.monotonic() - started < self.settings.start_timeout:
            if not self.alive:
                assert self._process is not None
                kind, message = why_it_died(self.log_path, self._log_offset, self._process.returncode)
                raise EngineFailure(kind, f"the vLLM server ended before it answered: {message}{self.tail()}")
            if await asyncio.to_thread(_healthy, self.url):
                # Without the plugin, a slot that was ever filled on a CPU spoils base requests that share a batch with an adapter's.
                self.slots_stick = not Machine.here().cuda and ACTIVE not in last_lines(self.log_path, self._log_offset, count=10_000)
                return
            await asyncio.sleep(0.2)
        raise EngineFailure(
            "timeout",
            f"waited {self.settings.start_timeout:g} s for the vLLM server to load {self.model_path} and answer, in vain{self.tail()}",
        )

    def _cause(self) -> str:
        status = self._process.returncode if self._process is not None else None
        return why_it_died(self.log_path, self._log_offset, status)[1] + self.tail()

    def _end_group(self) -> None:
        """Ask the watchdog to end the group by closing its standard input; insist after its grace."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
        try:
            process.wait(timeout=watchdog.GRACE_SECONDS + 5.0)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=10.0)


def reserve_port(port: int | None) -> socket.socket:
    """A bound socket that keeps a port for the server until it is closed; port None takes a free one.

    vLLM binds with SO_REUSEPORT, so it can bind the port that we hold; since we never listen, every connection goes to it.

    Raises:
        EngineFailure: Kind "port": somebody else has it.
    """
    if port is not None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                raise EngineFailure(
                    "port", f"port {port} is in use by another process; set engine.port to another, or leave it out to take a free one"
                ) from error
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(("127.0.0.1", port or 0))
    return held


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2.0) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
