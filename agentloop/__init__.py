"""agentloop: language-model agents that improve themselves from their own experience.

The public surface of the package. Everything here imports without torch, transformers or vllm.
"""

from agentloop.environment.base import Environment, StepResult, Task
from agentloop.environment.tools import ToolEnvironment, tool

__version__ = "0.1.0"

__all__ = ["Environment", "StepResult", "Task", "ToolEnvironment", "__version__", "tool"]
