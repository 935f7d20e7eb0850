"""Model names: an alias, a path or a hub id becomes a local folder that transformers, PEFT and vLLM can all load.

Importing this package is light: torch and transformers are imported only while a model is converted.
"""

from agentloop.model.folder import ModelFolder
from agentloop.model.resolve import ALIASES, check_name, resolve

__all__ = ["ALIASES", "ModelFolder", "check_name", "resolve"]
