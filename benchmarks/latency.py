"""An environment for benchmarks of generation: it never ends by itself and answers after a fixed wait."""

from __future__ import annotations

import asyncio

from agentloop import Environment, StepResult, Task

TOPICS = ("the sea", "a city at night", "numbers", "bread", "trains", "a garden", "winter", "music")


class Latency(Environment):
    """You tell a story, a few sentences at a time. The listener asks you to go on."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def tasks(self, split: str) -> list[Task]:  # type: ignore[override]
        """A thousand stories."""
        return [Task(f"{split}-{number}", {"topic": TOPICS[number % len(TOPICS)], "number": number}) for number in range(1000)]

    async def reset(self, task: Task) -> str:
        """Ask for a story."""
        return f"Story {task.data['number']}: tell me about {task.data['topic']}."

    async def step(self, action: str) -> StepResult:
        """Wait, then ask for more."""
        await asyncio.sleep(self.seconds)
        return StepResult(f"I have heard {len(action)} letters. Go on, what happened next?")
