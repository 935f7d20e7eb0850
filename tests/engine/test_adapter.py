"""Versions of adapters: the name follows from what the adapter computes, and what cannot be served is refused early."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentloop.engine.adapter import adapter_version, check_plan, check_servable, content_hash, role_of, serve_version
from agentloop.engine.base import AdapterVersion, EngineFailure
from agentloop.engine.scripted import ScriptedEngine
from agentloop.errors import Mistake
from tests.servers import TinyWorld


@pytest.fixture
def adapter(tiny_world: TinyWorld, tmp_path: Path) -> Path:
    """A copy of an adapter that a test may change."""
    return Path(shutil.copytree(tiny_world.versions[0].path, tmp_path / "adapter"))


def rewrite(adapter: Path, **changes: Any) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_name_holds_role_iteration_and_hash(adapter: Path) -> None:
    version = adapter_version(adapter, "critic", 7)
    assert version.name == f"critic-007-{content_hash(adapter)[:12]}"
    assert role_of(version.name) == "critic"
    assert role_of(adapter_version(adapter, "world-model", "final").name) == "world-model"


def test_the_hash_does_not_depend_on_where_or_in_which_order(adapter: Path) -> None:
    before = content_hash(adapter)
    modules = json.loads((adapter / "adapter_config.json").read_text())["target_modules"]
    rewrite(adapter, base_model_name_or_path="/elsewhere", target_modules=modules[::-1], inference_mode=False, peft_version="9")
    assert content_hash(adapter) == before


@pytest.mark.parametrize("change", [{"lora_alpha": 17}, {"r": 4}, {"use_rslora": True}, {"target_modules": ["q_proj"]}])
def test_the_hash_depends_on_what_the_configuration_computes(adapter: Path, change: dict[str, Any]) -> None:
    before = content_hash(adapter)
    rewrite(adapter, **change)
    assert content_hash(adapter) != before


def test_the_hash_depends_on_every_tensor_and_not_on_the_files_metadata(adapter: Path) -> None:
    from safetensors.torch import load_file, save_file

    before = content_hash(adapter)
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file(tensors, weights, metadata={"written": "again"})
    assert content_hash(adapter) == before
    last = sorted(tensors)[-1]
    changed = tensors[last].clone()
    changed.view(-1)[-1] += 1e-3
    save_file(tensors | {last: changed}, weights)
    assert content_hash(adapter) != before


def test_a_damaged_or_missing_adapter_is_a_mistake(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="not an adapter folder"):
        adapter_version(tmp_path / "nothing", "actor", 0)
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(Mistake, match="weights are damaged"):
        adapter_version(adapter, "actor", 0)
    weights.unlink()
    with pytest.raises(Mistake, match="has no weights"):
        adapter_version(adapter, "actor", 0)
    (adapter / "adapter_config.json").write_text("{")
    with pytest.raises(Mistake, match="configuration is damaged"):
        adapter_version(adapter, "actor", 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"r": 128}, "1 to 64"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "extra saved modules"),
        ({"bias": "all"}, "biases"),
        ({"peft_type": "IA3"}, "LoRA adapters only"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
    ],
)
def test_what_vllm_cannot_serve_is_refused(adapter: Path, change: dict[str, Any], words: str) -> None:
    check_servable(adapter, max_rank=64)
    rewrite(adapter, **change)
    with pytest.raises(Mistake, match=words):
        check_servable(adapter, max_rank=64)


def test_a_plan_is_checked_before_anything_is_trained_and_without_torch() -> None:
    check_plan(rank=16, max_rank=64)
    with pytest.raises(Mistake, match=r"found 65; expected 1 to 64 \(engine.max_lora_rank\)"):
        check_plan(rank=65, max_rank=64)
    code = "import sys, agentloop.engine.adapter, agentloop.engine.settings; print('torch' in sys.modules, 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False False"


class Letters:
    """One id a character."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> str:
        return "".join(map(chr, token_ids))


def renamed(version: AdapterVersion, role: str, iteration: int) -> AdapterVersion:
    return AdapterVersion(f"{role}-{iteration:03d}-{version.content_hash[:12]}", version.path, version.content_hash)


async def test_a_new_version_replaces_those_of_its_role_but_for_what_is_kept(tiny_world: TinyWorld) -> None:
    engine = ScriptedEngine(Letters(), lambda prompt, request: "x", adapters=2)
    actors = [renamed(version, "actor", index) for index, version in enumerate(tiny_world.versions[:4])]
    critic = renamed(tiny_world.versions[5], "critic", 0)
    await serve_version(engine, critic)
    assert await serve_version(engine, actors[0]) == ()
    assert await serve_version(engine, actors[1], keep={actors[0].name}) == ()
    assert await serve_version(engine, actors[2], keep={actors[0].name}) == (actors[1].name,)
    assert await engine.adapters() == tuple(sorted([actors[0].name, actors[2].name, critic.name]))
    assert set(await serve_version(engine, actors[3])) == {actors[0].name, actors[2].name}


async def test_more_roles_than_the_engine_was_started_for_are_refused(tiny_world: TinyWorld) -> None:
    engine = ScriptedEngine(Letters(), lambda prompt, request: "x", adapters=1)
    for index in range(2):
        await engine.load_adapter(renamed(tiny_world.versions[index], "actor", index))
    with pytest.raises(EngineFailure, match="no place for adapter"):
        await engine.load_adapter(renamed(tiny_world.versions[2], "critic", 0))
