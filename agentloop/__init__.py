"""agentloop: language-model agents that improve themselves from their own experience.

The public surface of the package. Names are imported when they are first used, so that `agentloop --help` and a user's own environment
file start at once; nothing here imports torch, transformers or vllm.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentloop.environment.base import Environment, StepResult, Task
    from agentloop.environment.tools import ToolEnvironment, tool

__version__ = "0.1.0"

__all__ = ["Environment", "StepResult", "Task", "ToolEnvironment", "__version__", "tool"]

_HOMES = {
    "Environment": "agentloop.environment.base",
    "StepResult": "agentloop.environment.base",
    "Task": "agentloop.environment.base",
    "ToolEnvironment": "agentloop.environment.tools",
    "tool": "agentloop.environment.tools",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'agentloop' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
