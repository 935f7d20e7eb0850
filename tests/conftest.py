"""Rules for all tests: what is marked `vllm` is skipped where vLLM is not installed."""

from __future__ import annotations

import importlib.util

import pytest

pytest_plugins = ["tests.servers"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `vllm` where there is no vLLM to start."""
    if importlib.util.find_spec("vllm") is not None:
        return
    skip = pytest.mark.skip(reason="vLLM is not installed")
    for item in items:
        if "vllm" in item.keywords:
            item.add_marker(skip)
