"""Settings: mistakes are found when they are made, with what was expected."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop.engine.settings import EngineSettings
from agentloop.errors import Mistake


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "vlm"}, "did you mean 'vllm'"),
        ({"dtype": "bf16"}, "found 'bf16'; expected auto | float32 | bfloat16 | float16"),
        ({"max_len": 4}, "unknown key 'max_len'"),
        ({"max_model_length": 4}, "did you mean 'max_model_len'"),
        ({"max_lora_rank": 513}, "found 513; expected at most 512"),
        ({"arguments": ["--max-lora-rank", "8"]}, "'--max-lora-rank' is for the engine's key 'max_lora_rank' to say"),
        ({"while_training": "slep"}, "did you mean 'sleep'"),
        ({"concurrency": 0}, "found 0; expected at least 1"),
        ({"start_timeout": 0}, "expected more than 0"),
        ({"url": "localhost:8000"}, "expected http://HOST:PORT"),
        ({"kind": "scripted"}, "expected script: file.py:function"),
    ],
)
def test_a_wrong_value_is_a_mistake_that_says_what_is_right(values: dict[str, Any], words: str) -> None:
    with pytest.raises(Mistake) as caught:
        EngineSettings.of(values)
    assert words in str(caught.value)


def test_auto_is_vllm_where_it_is_installed_else_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert EngineSettings().resolved_kind() == "vllm"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert EngineSettings().resolved_kind() == "transformers"
    assert EngineSettings(url="http://host:1").resolved_kind() == "vllm"
    assert EngineSettings(python="/env/bin/python").resolved_kind() == "vllm"
    assert EngineSettings(kind="scripted", script="a.py:f").resolved_kind() == "scripted"


def test_an_interpreter_that_is_none_is_a_mistake() -> None:
    with pytest.raises(Mistake, match="not an interpreter"):
        EngineSettings(python="/nowhere/bin/python").interpreter()
    assert EngineSettings().interpreter() is None
