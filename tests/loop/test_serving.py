"""Serving beside a trainer on one accelerator: the server sleeps or is stopped, and comes back with every adapter checked again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agentloop.engine.base import AdapterVersion, Engine
from agentloop.engine.check import CheckResult
from agentloop.engine.http import VLLMEngine
from agentloop.engine.settings import EngineSettings
from agentloop.loop import serving as module
from agentloop.loop.serving import Serving

OLD = AdapterVersion("actor-000-aaa", Path("old"), "a" * 64)
NEW = AdapterVersion("actor-001-bbb", Path("new"), "b" * 64)


class FakeVLLM:
    """A server in vLLM's place: it lists, loads, sleeps and wakes, and remembers what it was asked.

    Attributes:
        said: Requests that change something, in order, and the starts of the server ("start") and ends ("stop").
        checked: Names of the adapters that were checked, in order.
        refuses: Paths that are answered with a status.
        drowsy: Whether it says that it sleeps when it was told to.
    """

    def __init__(self) -> None:
        self.said: list[str] = []
        self.checked: list[str] = []
        self.refuses: dict[str, int] = {}
        self.drowsy = True
        self.asleep = False
        self.loaded: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        path = request.path
        if path in self.refuses:
            return web.json_response({"detail": "no"}, status=self.refuses[path])
        body: dict[str, Any] = await request.json() if request.can_read_body else {}
        if path == "/v1/models":
            cards = [{"id": "base", "root": "m", "max_model_len": 16}] + [{"id": name, "parent": "base"} for name in self.loaded]
            return web.json_response({"data": cards})
        if path in ("/version", "/is_sleeping"):
            return web.json_response({"version": "0.0", "is_sleeping": self.asleep})
        self.said.append(" ".join(filter(None, (request.path_qs, body.get("lora_name")))))
        assert not self.asleep or path == "/wake_up", f"{path} of a sleeping server"
        if path == "/v1/load_lora_adapter":
            self.loaded.append(body["lora_name"])
        elif path == "/v1/unload_lora_adapter":
            self.loaded.remove(body["lora_name"])
        else:
            self.asleep = path == "/sleep" and self.drowsy
        return web.Response()

    @asynccontextmanager
    async def open(self, *_: object, **__: object) -> AsyncIterator[Engine]:
        """In the place of `open_engine`: a fresh server and an engine on it."""
        self.said.append("start")
        self.asleep, self.loaded = False, []
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self.answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        engine = VLLMEngine(f"http://127.0.0.1:{runner.addresses[0][1]}", adapters=1, retries=0)
        try:
            await engine.connect()
            yield engine
        finally:
            self.said.append("stop")
            await engine.close()
            await runner.cleanup()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> FakeVLLM:
    fake = FakeVLLM()

    async def check(engine: Engine, version: AdapterVersion, *_: object) -> CheckResult:
        fake.checked.append(version.name)
        return CheckResult(version.name, 1, 0, 0.0, 0.0, 1.0, 1.0, 1.0)

    async def no_probe(*_: object) -> None:
        return None

    monkeypatch.setattr(module, "open_engine", fake.open)
    monkeypatch.setattr(module, "check_adapter", check)
    for probed in ("check_logprobs", "check_adapters"):  # asked of servers that are not ours, which this one only seems to be
        monkeypatch.setattr(f"agentloop.engine.probe.{probed}", no_probe)
    monkeypatch.setattr(module, "_one_accelerator", lambda: True)
    return fake


def serving(tmp_path: Path, **settings: Any) -> Serving:
    return Serving(EngineSettings(kind="vllm", **settings), tmp_path, adapters=1, run=tmp_path, probe=(1, 2))


async def test_it_sleeps_without_adapters_and_each_is_loaded_and_checked_again(server: FakeVLLM, tmp_path: Path) -> None:
    served = serving(tmp_path, while_training="sleep")
    await served.serve(OLD)
    await served.make_room()
    assert server.asleep and server.said == [
        "start",
        "/v1/load_lora_adapter actor-000-aaa",
        "/v1/unload_lora_adapter actor-000-aaa",
        "/sleep?level=1",
    ]
    await served.make_room()  # a second training on the way finds it asleep
    del server.said[:]
    await served.serve(NEW)
    await served.serve(OLD)
    assert server.said == ["/wake_up", "/v1/load_lora_adapter actor-001-bbb", "/v1/load_lora_adapter actor-000-aaa"]
    assert server.checked == [OLD.name, NEW.name, OLD.name]
    assert "engine wake-up" in served.take_waits()
    await served.close()
    assert server.said[-1] == "stop"


@pytest.mark.parametrize(
    ("refuses", "drowsy"),
    [({"/sleep": 404}, True), ({"/sleep": 500}, True), ({}, False), ({"/v1/unload_lora_adapter": 500}, True)],
    ids=["not started for it", "fails", "stays awake", "does not let go of an adapter"],
)
async def test_a_server_that_does_not_fall_asleep_is_stopped(
    server: FakeVLLM, tmp_path: Path, refuses: dict[str, int], drowsy: bool
) -> None:
    server.refuses, server.drowsy = refuses, drowsy
    served = serving(tmp_path, while_training="sleep")
    await served.serve(OLD)
    await served.make_room()
    assert server.said[-1] == "stop" and served.info is None
    await served.serve(NEW)
    assert server.said[-2:] == ["start", "/v1/load_lora_adapter actor-001-bbb"] and "/wake_up" not in server.said
    await served.close()


@pytest.mark.parametrize("status", [404, 500])
async def test_a_server_that_does_not_wake_up_is_started_again(server: FakeVLLM, tmp_path: Path, status: int) -> None:
    served = serving(tmp_path, while_training="sleep")
    await served.serve(OLD)
    await served.make_room()
    server.refuses = {"/wake_up": status}
    await served.serve(NEW)
    assert server.said[-3:] == ["stop", "start", "/v1/load_lora_adapter actor-001-bbb"]
    assert server.checked == [OLD.name, NEW.name]
    await served.close()


async def test_by_default_it_is_stopped(server: FakeVLLM, tmp_path: Path) -> None:
    served = serving(tmp_path)
    await served.serve(OLD)
    await served.make_room()
    assert server.said[-1] == "stop" and not [said for said in server.said if "sleep" in said]


async def test_with_more_accelerators_than_one_it_stays(server: FakeVLLM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_one_accelerator", lambda: False)
    served = serving(tmp_path, while_training="sleep")
    await served.serve(OLD)
    await served.make_room()
    assert server.said == ["start", "/v1/load_lora_adapter actor-000-aaa"] and served.info is not None
    await served.close()
