"""Ctrl-C and SIGTERM end a run cleanly: what is finished is kept, engines are closed, and the message says how to go on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from agentloop.errors import RunFailed

T = TypeVar("T")


class Interrupted(RunFailed):
    """The user stopped the run. Exit code 130, as shells have it for Ctrl-C."""

    exit_code = 130


def run_until_interrupted(work: Coroutine[Any, Any, T], *, how_to_go_on: str) -> T:
    """Run `work`; the first Ctrl-C or SIGTERM cancels it, so that it can put things away, and a second one is the system's own.

    Raises:
        Interrupted: It was cancelled so; the message ends in `how_to_go_on`.
    """

    async def watched() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        stopped: list[str] = []

        def stop(name: str, number: signal.Signals) -> None:
            stopped.append(name)
            loop.remove_signal_handler(number)
            task.cancel()

        for number, name in ((signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")):
            with suppress(NotImplementedError):  # Windows: Ctrl-C stays a KeyboardInterrupt there
                loop.add_signal_handler(number, stop, name, number)
        try:
            return await task
        except asyncio.CancelledError:
            if not stopped:
                raise
            raise Interrupted(f"stopped by {stopped[0]}; everything finished is kept: {how_to_go_on}") from None

    return asyncio.run(watched())
