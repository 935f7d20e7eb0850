"""The engine of a run, as stages see it: started when first needed, with the adapters in use loaded, checked and none beyond them.

A version is checked whenever this process loads it for the first time since the engine was started or slept (the adapter check: it
generates and compares with a PEFT forward), so that a run can never go on with the base model, a stale prefix or another version while
its logs say otherwise.
"""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import AsyncExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentloop.engine import open_engine
from agentloop.engine.base import BASE, AdapterVersion, Engine, EngineFailure, EngineInfo
from agentloop.engine.check import check_adapter
from agentloop.engine.http import VLLMEngine
from agentloop.engine.settings import EngineSettings


class Serving:
    """Owns the engine between the first stage that needs one and the end of the run.

    Args:
        settings: What the recipe says of the engine.
        model_path: Folder of the base model.
        adapters: Roles that have an adapter.
        run: Directory of the run; the engine's log goes to its `logs`.
        probe: Prompt ids that the adapter check generates from.

    Attributes:
        waits: Seconds spent starting engines and checking adapters since `take_waits`, by what was waited for.
    """

    def __init__(self, settings: EngineSettings, model_path: Path, *, adapters: int, run: Path, probe: tuple[int, ...]) -> None:
        self._settings = settings
        self._model_path = model_path
        self._adapters = adapters
        self._run = run
        self._probe = probe
        self._stack = AsyncExitStack()
        self._engine: Engine | None = None
        self._asleep = False
        self._checked: set[str] = set()
        self.waits: defaultdict[str, float] = defaultdict(float)

    async def engine(self) -> Engine:
        """The running engine; wakes it up if it sleeps, starts it if there is none."""
        if self._asleep:
            await self._wake_up()
        if self._engine is None:
            began = time.monotonic()
            context = open_engine(self._settings, self._model_path, adapters=self._adapters, work_dir=self._run / "logs")
            self._engine = await self._stack.enter_async_context(context)
            if isinstance(self._engine, VLLMEngine):
                await self._engine.unload_leftovers(self._run)
            self.waits["engine start"] += time.monotonic() - began
        return self._engine

    @property
    def info(self) -> EngineInfo | None:
        """What the engine is; None while it is not running."""
        return self._engine.info if self._engine is not None else None

    async def serve(self, version: AdapterVersion | None) -> tuple[str, dict[str, Any]]:
        """Make a version usable and return the name to ask for, with what the check found; None is the base.

        Raises:
            RunFailed: The engine does not generate with this adapter's weights.
        """
        engine = await self.engine()
        if version is None:
            return BASE, {}
        if version.name in await engine.adapters() and version.name in self._checked:
            return version.name, {}
        await engine.load_adapter(version)
        found: dict[str, Any] = {}
        if version.name not in self._checked and engine.info.kind != "scripted":
            began = time.monotonic()
            result = await check_adapter(engine, version, self._model_path, self._probe)
            found = asdict(result)
            self.waits["adapter check"] += time.monotonic() - began
        self._checked.add(version.name)
        return version.name, found

    async def retire(self, keep: set[str]) -> None:
        """Unload every adapter that this run loaded and that is not in `keep`."""
        if self._engine is None:
            return
        for name in await self._engine.adapters():
            if name not in keep:
                await self._engine.unload_adapter(name)
                self._checked.discard(name)

    async def make_room(self) -> None:
        """Give up the accelerator's memory before a trainer starts on it; a CPU engine and somebody else's server stay."""
        if self._engine is None or self._asleep or self._settings.url is not None:
            return
        if self._engine.info.kind in ("vllm", "transformers") and _one_accelerator() and not await self._fall_asleep():
            await self.close()

    async def _fall_asleep(self) -> bool:
        """Let the server sleep, if the settings say so; whether it does. No adapter is loaded then, so that each is checked again."""
        if self._settings.while_training != "sleep" or not isinstance(self._engine, VLLMEngine):
            return False
        try:
            await self.retire(set())
            await self._engine.sleep()
        except EngineFailure:  # then it is stopped, which frees the memory in any case
            return False
        self._asleep = True
        return True

    async def _wake_up(self) -> None:
        """Wake the server up, or stop it, so that it is started again."""
        began = time.monotonic()
        assert isinstance(self._engine, VLLMEngine)
        self._asleep = False
        try:
            await self._engine.wake_up()
        except EngineFailure:
            await self.close()
        self.waits["engine wake-up"] += time.monotonic() - began

    def take_waits(self) -> dict[str, float]:
        """The waits since the last call, so that a stage can account for its own."""
        waits = {name: round(seconds, 3) for name, seconds in self.waits.items()}
        self.waits.clear()
        return waits

    async def close(self) -> None:
        """Stop the engine, or leave a server of somebody else's as it was found; the next stage that needs one starts it again."""
        if self._settings.url is not None:
            with suppress(EngineFailure):  # a server that is gone has no adapters either
                await self.retire(set())
        await self._stack.aclose()
        self._engine = None
        self._asleep = False
        self._checked.clear()


def _one_accelerator() -> bool:
    import torch

    return torch.cuda.is_available() and torch.cuda.device_count() == 1
