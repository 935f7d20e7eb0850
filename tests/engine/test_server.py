"""Our own server process: it comes back after a crash, never outlives us, and says why it could not start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agentloop.engine import watchdog
from agentloop.engine.base import BASE, EngineFailure, GenerationRequest
from agentloop.engine.http import VLLMEngine
from agentloop.engine.server import VLLMServer, reserve_port
from agentloop.engine.settings import EngineSettings
from agentloop.errors import Mistake
from tests.servers import SETTINGS, START_SECONDS, TinyServer, TinyWorld

PROMPT = tuple(range(10, 40))


def group_members(group: int) -> list[int]:
    """Processes of a process group that still run."""
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            state, _, pgrp = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(entry))
    return found


def await_condition(condition, what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


@pytest.mark.vllm
@pytest.mark.timeout(2 * START_SECONDS)
async def test_killed_in_the_middle_of_requests_it_comes_back_with_its_adapters_and_answers_them(
    tiny_server: TinyServer, tiny_world: TinyWorld
) -> None:
    server = tiny_server.server
    engine = VLLMEngine(server=server, adapters=2)
    await engine.connect(tiny_world.model_path, dtype="float32")
    versions = tiny_world.versions[:2]
    for version in versions:
        await engine.load_adapter(version)
    starts, old_group, old_url = server.starts, server.pid, server.url
    before = await engine.score(PROMPT, versions[1].name)
    names = [BASE, versions[0].name, versions[1].name]
    requests = [GenerationRequest(PROMPT, max_tokens=300, stop_token_ids=(), seed=index, adapter=names[index % 3]) for index in range(6)]
    running = [asyncio.create_task(engine.generate(request)) for request in requests]
    await asyncio.sleep(0.3)
    assert not any(task.done() for task in running), "the requests ended before the crash; make them longer"
    os.kill(server_process(old_group), signal.SIGKILL)
    answers = await asyncio.gather(*running)
    assert [len(answer.ids) for answer in answers] == [300] * 6
    assert (server.starts, server.url) == (starts + 1, old_url)
    assert await engine.adapters() == tuple(sorted(version.name for version in versions))
    assert await engine.score(PROMPT, versions[1].name) == pytest.approx(before, abs=2e-4)
    assert group_members(old_group) == []
    for version in versions:
        await engine.unload_adapter(version.name)


def server_process(group: int) -> int:
    """The API server: the watchdog's only child."""
    parents = {pid: int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in group_members(group)}
    return next(pid for pid, parent in parents.items() if parent == group)


@pytest.mark.vllm
def test_the_cpu_plugin_is_active_in_the_server(tiny_server: TinyServer) -> None:
    if tiny_server.server.slots_stick:
        log = tiny_server.server.log_path.read_text()
        reason = [line for line in log.splitlines() if "agentloop_cpu_lora" in line]
        pytest.fail(f"the plugin replaced nothing: {reason}")


def fake_vllm(folder: Path, body: str) -> EngineSettings:
    """Settings whose interpreter is a script, in place of a Python with vLLM; it gets the server's command line."""
    folder.mkdir(parents=True, exist_ok=True)
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\n{body}")
    script.chmod(0o755)
    return replace(SETTINGS, python=str(script), start_timeout=30.0)


LOGGED_DEATHS = [
    ("OSError: [Errno 98] error while attempting to bind on address: address already in use", "port", "engine.port"),
    (
        "ValueError: To serve at least one request with the models's max seq len (8192), (9.0 GiB KV cache is needed, which is larger than"
        " the available KV cache memory (1.0 GiB)",
        "memory",
        "engine.max_model_len",
    ),
    ("User-specified max_model_len (9999) is greater than the derived max_model_len (512)", "context", "longer than the model's own limit"),
    ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes", "memory", "does not fit"),
    ("torch.OutOfMemoryError: CUDA out of memory.", "memory", "does not fit"),
    ("ModuleNotFoundError: No module named 'vllm'", "request", "vLLM is not installed"),
    ("api_server.py: error: unrecognized arguments: --fast", "request", "engine.arguments"),
    ("Something nobody has seen before", "crash", "exit status 7"),
]


@pytest.mark.parametrize(("line", "kind", "hint"), LOGGED_DEATHS)
async def test_an_early_exit_is_named_with_its_cause_and_the_end_of_the_log(
    line: str, kind: str, hint: str, tmp_path: Path, tiny_world: TinyWorld
) -> None:
    settings = fake_vllm(tmp_path, f"import sys; print({line!r}); sys.exit(7)")
    server = VLLMServer(settings, tiny_world.model_path, adapters=1, work_dir=tmp_path)
    with pytest.raises(EngineFailure) as caught:
        await server.start()
    assert caught.value.kind == kind
    assert hint in str(caught.value)
    assert line.split(" (")[0] in str(caught.value), "the end of the log is missing"
    await server.close()


async def test_a_server_killed_for_memory_while_it_loads_says_signal_9(tmp_path: Path, tiny_world: TinyWorld) -> None:
    settings = fake_vllm(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    server = VLLMServer(settings, tiny_world.model_path, adapters=0, work_dir=tmp_path)
    with pytest.raises(EngineFailure, match="signal 9"):
        await server.start()
    await server.close()


async def test_a_server_that_never_answers_is_given_up_with_what_was_waited_for(tmp_path: Path, tiny_world: TinyWorld) -> None:
    settings = replace(fake_vllm(tmp_path, "import time; print('loading for ever', flush=True); time.sleep(1000)"), start_timeout=1.0)
    server = VLLMServer(settings, tiny_world.model_path, adapters=0, work_dir=tmp_path)
    with pytest.raises(EngineFailure, match=r"waited 1 s for the vLLM server to load .*model and answer") as caught:
        await server.start()
    assert caught.value.kind == "timeout"
    assert "loading for ever" in str(caught.value)
    assert group_members(server.pid) == []
    await server.close()


async def test_restarts_are_bounded(tmp_path: Path, tiny_world: TinyWorld) -> None:
    # Answers /health once started, then dies at the first other request: a crash at every try.
    settings = replace(fake_vllm(tmp_path, DIES_WHEN_ASKED), restarts=2)
    server = VLLMServer(settings, tiny_world.model_path, adapters=0, work_dir=tmp_path)
    await server.start()
    engine = VLLMEngine(server=server, retries=10)
    with pytest.raises(EngineFailure, match=r"was started again 2 times, which is all that engine\.restarts allows") as caught:
        await engine.connect()
    assert caught.value.kind == "crash"
    assert server.starts == 3
    await engine.close()


DIES_WHEN_ASKED = """
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != "/health":
            os._exit(3)
        self.send_response(200)
        self.end_headers()

class Server(http.server.HTTPServer):
    allow_reuse_port = True

Server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def test_a_port_in_use_is_found_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EngineFailure, match=f"port {port} is in use") as caught:
            reserve_port(port)
    assert caught.value.kind == "port"


def test_a_reserved_port_can_be_bound_by_the_server_and_by_nobody_else() -> None:
    held = reserve_port(None)
    port = held.getsockname()[1]
    with socket.socket() as stranger, pytest.raises(OSError):
        stranger.bind(("127.0.0.1", port))
    with socket.socket() as server, socket.create_server(("127.0.0.1", port), reuse_port=True):
        server.connect(("127.0.0.1", port))
    held.close()


def test_a_folder_without_a_model_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="no config.json"):
        VLLMServer(SETTINGS, tmp_path / "nothing", adapters=0, work_dir=tmp_path)


def test_the_group_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """The parent starts the watchdog as the server does, with a child that has a child of its own, and is then killed by SIGKILL."""
    pids = tmp_path / "pids"
    command = f"sleep 1000 & echo $$ $! > {pids}; wait"
    parent = tmp_path / "parent.py"
    parent.write_text(
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-S', {watchdog.__file__!r}, 'sh', '-c', {command!r}],"
        " stdin=subprocess.PIPE, start_new_session=True)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )
    process = subprocess.Popen([sys.executable, str(parent)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    group = int(process.stdout.readline())
    await_condition(lambda: pids.exists() and len(pids.read_text().split()) == 2, "the grandchild to start")
    assert len(group_members(group)) == 3
    process.kill()
    process.wait()
    await_condition(lambda: not group_members(group), "the whole group to end")


def test_the_watchdog_ends_who_is_left_when_the_command_ends(tmp_path: Path) -> None:
    """A crashed API server leaves its engine and its workers behind; they must not keep the memory."""
    process = subprocess.Popen(
        [sys.executable, "-S", watchdog.__file__, "sh", "-c", "sleep 1000 & exit 5"], stdin=subprocess.PIPE, start_new_session=True
    )
    assert process.wait(timeout=30) == 5
    assert group_members(process.pid) == []
    assert process.stdin is not None
    process.stdin.close()


def test_the_log_is_kept_over_restarts_and_only_the_last_start_is_quoted(tmp_path: Path, tiny_world: TinyWorld) -> None:
    settings = fake_vllm(tmp_path, "import sys; print('first words'); sys.exit(1)")
    server = VLLMServer(settings, tiny_world.model_path, adapters=0, work_dir=tmp_path)
    with pytest.raises(EngineFailure):
        asyncio.run(server.start())
    fake_vllm(tmp_path, "import sys; print('second words'); sys.exit(1)")
    with pytest.raises(EngineFailure) as caught:
        asyncio.run(server.start())
    assert "second words" in str(caught.value) and "first words" not in str(caught.value)
    assert "first words" in server.log_path.read_text()
    asyncio.run(server.close())
    assert json.dumps(server.starts) == "2"
