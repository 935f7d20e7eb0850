"""The engines that the contract is tested on, each over the same tiny model."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agentloop.engine.base import Engine
from agentloop.engine.scripted import ScriptedEngine
from agentloop.engine.settings import EngineSettings
from tests.servers import MAX_LEN, ROLES, TinyServer, TinyWorld

SCRIPT = """
import hashlib

def answer(prompt_text, request):
    digest = hashlib.sha256(f"{prompt_text}|{request.adapter}|{request.seed}".encode()).digest()
    return "".join("abcdefgh"[byte % 8] for byte in digest[:12])
"""


@pytest_asyncio.fixture(params=["scripted", "transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
async def engine(request: pytest.FixtureRequest, tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """One engine of each kind, closed after the test with none of its adapters left."""
    made: Engine
    if request.param == "scripted":
        script = tmp_path_factory.mktemp("script") / "script.py"
        script.write_text(SCRIPT)
        settings = EngineSettings(kind="scripted", script=f"{script}:answer", max_model_len=MAX_LEN)
        made = ScriptedEngine.open(settings, tiny_world.model_path, adapters=ROLES)
    elif request.param == "transformers":
        from agentloop.engine.local import TransformersEngine

        made = await TransformersEngine.open(EngineSettings(dtype="float32"), tiny_world.model_path, adapters=ROLES)
    else:
        server: TinyServer = request.getfixturevalue("tiny_server")
        made = await server.connect()
    yield made
    for name in await made.adapters():
        await made.unload_adapter(name)
    await made.close()
