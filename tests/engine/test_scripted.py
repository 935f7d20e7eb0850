"""The scripted engine: reproducible to the last digit, by a rule that is written down."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentloop.engine.base import EngineFailure, GenerationRequest
from agentloop.engine.scripted import ScriptedEngine, load_script, ruled_logprob
from agentloop.errors import Mistake
from tests.engine.test_adapter import Letters

STOP = 1
REQUEST = GenerationRequest(prompt_ids=tuple(map(ord, "2+2=")), max_tokens=20, stop_token_ids=(STOP,), seed=3)


@pytest.mark.parametrize(
    ("text", "most", "ids", "finish"),
    [("ab", 9, [97, 98, 1], "stop"), ("ab", 3, [97, 98, 1], "stop"), ("ab", 2, [97, 98], "length"), ("", 5, [1], "stop")],
)
async def test_the_answer_is_the_text_and_the_stop_token_cut_at_max_tokens(text: str, most: int, ids: list[int], finish: str) -> None:
    engine = ScriptedEngine(Letters(), lambda prompt, request: text)
    generation = await engine.generate(GenerationRequest((5,), most, (STOP,)))
    assert (list(generation.ids), generation.finish) == (ids, finish)


async def test_the_script_sees_the_prompts_text_and_the_request() -> None:
    engine = ScriptedEngine(Letters(), lambda prompt, request: f"{prompt}{request.seed}")
    generation = await engine.generate(REQUEST)
    assert "".join(map(chr, generation.ids[:-1])) == "2+2=3"


@given(st.text(min_size=1), st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_rule_is_the_one_that_is_documented(adapter: str, position: int, token: int) -> None:
    digest = hashlib.sha256(f"{adapter}|{position}|{token}".encode()).hexdigest()
    assert ruled_logprob(adapter, position, token) == -(int(digest[:8], 16) / 2**32 + 2**-32)
    assert -1 <= ruled_logprob(adapter, position, token) < 0


async def test_a_script_that_fails_is_a_refused_request_with_its_error() -> None:
    engine = ScriptedEngine(Letters(), lambda prompt, request: str(1 // 0))
    with pytest.raises(EngineFailure, match="ZeroDivisionError") as caught:
        await engine.generate(REQUEST)
    assert caught.value.kind == "request"


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("script.py", "expected file.py:function"),
        ("{folder}/none.py:answer", "does not exist"),
        ("{folder}/script.py:anwser", "did you mean 'answer'"),
        ("{folder}/broken.py:answer", "SyntaxError"),
    ],
)
def test_a_wrong_reference_to_a_script_is_a_mistake(reference: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("def answer(prompt, request): return 'x'\n")
    (tmp_path / "broken.py").write_text("def answer(:\n")
    with pytest.raises(Mistake, match=words):
        load_script(reference.format(folder=tmp_path))
    assert load_script(f"{tmp_path}/script.py:answer")("", REQUEST) == "x"
