"""Environments written to a file, as a user has them."""

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent

import pytest

from agentloop.environment.registry import EnvironmentSpec, find

HEAD = """
import asyncio, os, threading, time
from agentloop import Environment, StepResult, Task, ToolEnvironment, tool

class _Count(Environment):
    \"\"\"Say the next number.\"\"\"

    def tasks(self, split):
        return [Task(f"{split}-{n}", {"start": n}) for n in range(5)]

    def reset(self, task):
        self.n = task.data["start"]
        return str(self.n)

    def step(self, action):
        right = action == str(self.n + 1)
        self.n += right
        return StepResult(str(self.n), reward=float(right and self.n % 10 == 3), done=self.n % 10 == 3)

    def demonstration(self, task):
        return [str(n) for n in range(task.data["start"] + 1, 4 + 10 * (task.data["start"] >= 3))]
"""

Write = Callable[..., EnvironmentSpec]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an environment file that derives from a sound one, with methods of its own, and find it."""

    def write(methods: str, name: str = "mine.py", base: str = "_Count") -> EnvironmentSpec:
        path = tmp_path / name
        path.write_text(
            HEAD + f'\n\nclass Mine({base}):\n    """Say the next number."""\n\n' + indent(dedent(methods).strip() or "pass", "    ") + "\n"
        )
        return find(str(path))

    return write
