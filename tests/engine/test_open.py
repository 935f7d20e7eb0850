"""`open_engine`: one way in, closed on every way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentloop.engine import BASE, Engine, EngineFailure, EngineSettings, open_engine
from agentloop.engine.base import GenerationRequest
from tests.engine.conftest import SCRIPT
from tests.servers import TinyServer, TinyWorld

REQUEST = GenerationRequest((5, 6), 4, (2,), seed=1, adapter=BASE)


@pytest.mark.parametrize("kind", ["scripted", "transformers", pytest.param("vllm", marks=pytest.mark.vllm)])
async def test_each_kind_opens_as_an_engine_and_is_closed_when_the_body_fails(
    kind: str, tiny_world: TinyWorld, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    url = None
    if kind == "vllm":
        server: TinyServer = request.getfixturevalue("tiny_server")
        url = server.url
    settings = EngineSettings(kind=kind, script=f"{tmp_path}/script.py:answer", dtype="float32", url=url)  # type: ignore[arg-type]
    closed = []
    with pytest.raises(ZeroDivisionError):
        async with open_engine(settings, tiny_world.model_path, adapters=1, work_dir=tmp_path) as engine:
            assert isinstance(engine, Engine)
            assert engine.info.kind == kind
            assert (await engine.generate(REQUEST)).ids
            close = engine.close

            async def noted() -> None:
                closed.append(1)
                await close()

            engine.close = noted  # type: ignore[method-assign]
            raise ZeroDivisionError
    assert closed == [1]


async def test_nobody_behind_the_url_fails_before_the_body(tiny_world: TinyWorld, tmp_path: Path) -> None:
    settings = EngineSettings(kind="vllm", url="http://127.0.0.1:9", retries=0)
    with pytest.raises(EngineFailure, match="could not give the list of its models"):
        async with open_engine(settings, tiny_world.model_path, adapters=0, work_dir=tmp_path):
            pytest.fail("the body ran without an engine")
