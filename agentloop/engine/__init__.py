"""Engines: prompt ids in, completion ids and log-probabilities out, with many adapters in one batch. See `agentloop.engine.base` for the
contract."""

from agentloop.engine.base import BASE, AdapterVersion, Engine, EngineFailure, EngineInfo, Generation, GenerationRequest
from agentloop.engine.open import open_engine
from agentloop.engine.settings import EngineSettings

__all__ = [
    "BASE",
    "AdapterVersion",
    "Engine",
    "EngineFailure",
    "EngineInfo",
    "EngineSettings",
    "Generation",
    "GenerationRequest",
    "open_engine",
]
