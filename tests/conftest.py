"""Rules for all tests: what is marked `vllm` is skipped where vLLM is not installed."""

from __future__ import annotations

import importlib.util

import hypothesis
import pytest

# A busy machine is no failure: a first example imports what it needs, and no test asserts time.
hypothesis.settings.register_profile("agentloop", deadline=None)
hypothesis.settings.load_profile("agentloop")

pytest_plugins = ["tests.servers", "tests.warm"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `vllm` where there is no vLLM to start."""
    if importlib.util.find_spec("vllm") is not None:
        return
    skip = pytest.mark.skip(reason="vLLM is not installed")
    for item in items:
        if "vllm" in item.keywords:
            item.add_marker(skip)
