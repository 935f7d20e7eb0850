"""Session fixtures that any test folder may use: a tiny model with adapters, and one vLLM server over it, shared by all tests.

`tiny_world` makes the model and its adapters once; `tiny_server` starts vLLM once (it takes half a minute). Tests that take
`tiny_server` are marked `vllm`, connect an engine of their own with `await tiny_server.connect()`, and leave no adapter loaded behind:
`engine` in tests/engine/conftest.py does both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from agentloop.engine.adapter import adapter_version
from agentloop.engine.base import AdapterVersion
from agentloop.engine.http import VLLMEngine
from agentloop.engine.server import VLLMServer
from agentloop.engine.settings import EngineSettings
from tests.tiny_model import make_adapter, make_model

MAX_LEN = 512
ADAPTERS = 6
SETTINGS = EngineSettings(
    kind="vllm",
    dtype="float32",
    max_model_len=MAX_LEN,
    max_lora_rank=16,
    concurrency=32,
    memory_gib=0.25,
    # Prompts longer than this are read in pieces, between the steps of others, as long ones are in a real run.
    arguments=("--max-num-batched-tokens", "160"),
)
START_SECONDS = 900
"""Time limit of a test that may have to start the server."""

ROLES = 2
"""Roles that the shared server was started for: four versions at once, five slots."""


@dataclass(frozen=True)
class TinyWorld:
    """A random Llama of 0.6 M parameters over characters, and versions of adapters on it, all with different weights."""

    model_path: Path
    versions: tuple[AdapterVersion, ...]


@dataclass(frozen=True)
class TinyServer:
    """The shared server."""

    server: VLLMServer
    world: TinyWorld

    @property
    def url(self) -> str:
        """Address of the server."""
        return self.server.url

    async def connect(self) -> VLLMEngine:
        """An engine on the shared server, for one test; closing it leaves the server running."""
        engine = VLLMEngine(self.url, adapters=ROLES)
        await engine.connect(self.world.model_path, dtype="float32")
        return engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests marked `vllm` the time that a server takes to start on a busy machine; whichever comes first waits for it."""
    for item in items:
        if "vllm" in item.keywords and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(START_SECONDS))


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """The tiny model and its adapters, made once a session."""
    folder = tmp_path_factory.mktemp("tiny")
    model_path = make_model(folder / "model", max_positions=MAX_LEN)
    paths = [make_adapter(folder / f"adapter{index}", model_path, seed=index + 1) for index in range(ADAPTERS)]
    return TinyWorld(model_path, tuple(adapter_version(path, f"role{index}", 0) for index, path in enumerate(paths)))


@pytest.fixture(scope="session")
def tiny_server(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyServer]:
    """vLLM over the tiny model, started once a session."""
    server = VLLMServer(SETTINGS, tiny_world.model_path, adapters=ROLES, work_dir=tmp_path_factory.mktemp("vllm"))
    # In a thread, because the fixture may be asked for while a test's event loop is running.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, server.start()).result()
        yield TinyServer(server, tiny_world)
        thread.submit(asyncio.run, server.close()).result()
