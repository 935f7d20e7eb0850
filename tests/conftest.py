"""Rules for all tests: which are skipped, and which run in the same process."""

from __future__ import annotations

import importlib.util

import hypothesis
import pytest

# A busy machine is no failure: a first example imports what it needs, and no test asserts time.
hypothesis.settings.register_profile("agentloop", deadline=None)
hypothesis.settings.load_profile("agentloop")

pytest_plugins = ["tests.servers", "tests.warm"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `vllm` where there is no vLLM to start, and say which tests belong into one process of several.

    Those that need vLLM do, since they share a server, and it takes both cores; the others go by file.
    """
    missing = importlib.util.find_spec("vllm") is None
    for item in items:
        needs_vllm = "vllm" in item.keywords
        item.add_marker(pytest.mark.xdist_group("vllm" if needs_vllm else item.nodeid.partition("::")[0]))
        if needs_vllm and missing:
            item.add_marker(pytest.mark.skip(reason="vLLM is not installed"))
