"""One way to get an engine, whatever its kind: `async with open_engine(settings, model_path, adapters=..., work_dir=...) as engine`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from agentloop.engine.base import Engine
from agentloop.engine.http import VLLMEngine
from agentloop.engine.launch import Machine, check_slots, resolved_dtype
from agentloop.engine.server import VLLMServer
from agentloop.engine.settings import EngineSettings


@asynccontextmanager
async def open_engine(settings: EngineSettings, model_path: Path, *, adapters: int, work_dir: Path) -> AsyncIterator[Engine]:
    """A started engine for `model_path`, closed on leaving, also when the body fails.

    Args:
        settings: See `EngineSettings`.
        model_path: Folder of the base model.
        adapters: Roles that have an adapter; the present and the next version of each may be loaded at once.
        work_dir: Folder for logs.

    Raises:
        EngineFailure: It could not be started; the kind and the message say why.
        Mistake: The settings or the model folder are wrong.
    """
    kind = settings.resolved_kind()
    if kind == "vllm":
        check_slots(settings, adapters)
    engine: Engine
    if kind == "vllm":
        engine = await _open_vllm(settings, model_path, adapters=adapters, work_dir=work_dir)
    elif kind == "transformers":
        from agentloop.engine.local import TransformersEngine

        engine = await TransformersEngine.open(settings, model_path, adapters=adapters)
    else:
        from agentloop.engine.scripted import ScriptedEngine

        engine = ScriptedEngine.open(settings, model_path, adapters=adapters)
    try:
        yield engine
    finally:
        await engine.close()


async def _open_vllm(settings: EngineSettings, model_path: Path, *, adapters: int, work_dir: Path) -> VLLMEngine:
    server = None
    if settings.url is None:
        server = VLLMServer(settings, model_path, adapters=adapters, work_dir=work_dir)
    engine = VLLMEngine(
        settings.url or "", server=server, adapters=adapters, request_timeout=settings.request_timeout, retries=settings.retries
    )
    try:
        if server is not None:
            await server.start()
        # What a server at a URL computes in is not known; the adapter check is then as lenient as for bfloat16, unless the settings say it.
        dtype = resolved_dtype(settings, Machine.here()) if server is not None else settings.dtype.replace("auto", "unknown")
        await engine.connect(model_path, dtype)
    except BaseException:
        await engine.close()
        raise
    return engine
