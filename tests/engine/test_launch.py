"""The server's command line and environment, as pure functions."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agentloop.engine.launch import GIB, Machine, cache_bytes, check_slots, lay_plugin, preloads, server_command, server_environment, slots
from agentloop.engine.settings import RANKS, EngineSettings
from agentloop.errors import Mistake

CPU = Machine(cuda=False, cpus=(0, 1, 5), free_bytes=20 * GIB)
GPU = replace(CPU, cuda=True)
MODEL = {
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "num_attention_heads": 9,
    "hidden_size": 576,
    "max_position_embeddings": 8192,
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(MODEL))
    return tmp_path


def words(model: Path, machine: Machine = CPU, *, adapters: int = 2, **settings: object) -> list[str]:
    return server_command(EngineSettings(**settings), model, adapters=adapters, port=1234, machine=machine)  # type: ignore[arg-type]


def value(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_what_exact_logprobs_rest_on_is_always_set(model: Path) -> None:
    for machine in (CPU, GPU):
        command = words(model, machine)
        assert value(command, "--logprobs-mode") == "processed_logprobs"
        assert value(command, "--generation-config") == "vllm"
        assert "--enable-prefix-caching" in command and "--enable-prompt-tokens-details" in command
        assert command[1:3] == ["-m", "vllm.entrypoints.openai.api_server"]


def test_float32_on_a_cpu_and_bfloat16_on_a_gpu_unless_told(model: Path) -> None:
    assert value(words(model), "--dtype") == "float32"
    assert value(words(model, GPU), "--dtype") == "bfloat16"
    assert value(words(model, dtype="bfloat16"), "--dtype") == "bfloat16"


def test_there_is_a_spare_slot_beside_two_versions_a_role(model: Path) -> None:
    assert [slots(adapters) for adapters in (1, 2, 5)] == [3, 5, 11]
    assert value(words(model, adapters=2), "--max-loras") == value(words(model, adapters=2), "--max-cpu-loras") == "5"
    assert "--enable-lora" not in words(model, adapters=0)
    assert value(words(model, adapters=2, max_loras=9), "--max-loras") == "9"


def test_only_a_cuda_server_that_is_to_sleep_is_started_for_it(model: Path, tmp_path: Path) -> None:
    for machine, asked, can in ((GPU, "sleep", True), (GPU, "stop", False), (CPU, "sleep", False)):
        assert ("--enable-sleep-mode" in words(model, machine, while_training=asked)) is can
        environment = server_environment(EngineSettings(while_training=asked), machine, {}, plugin=tmp_path)  # type: ignore[arg-type]
        assert ("VLLM_SERVER_DEV_MODE" in environment) is can


def test_fewer_slots_than_the_roles_need_are_refused() -> None:
    check_slots(EngineSettings(max_loras=5), 2)
    check_slots(EngineSettings(max_loras=1), 0)
    with pytest.raises(Mistake, match=r"adapters of 2 roles; found 4; expected max_loras of at least 5: two for each role, and a spare"):
        check_slots(EngineSettings(max_loras=4), 2)


@pytest.mark.parametrize(("asked", "served"), [(1, "1"), (4, "8"), (16, "16"), (40, "64"), (300, "320")])
def test_the_rank_cap_is_one_that_vllm_accepts(model: Path, asked: int, served: str) -> None:
    assert value(words(model, max_lora_rank=asked), "--max-lora-rank") == served


def test_the_ranks_are_those_of_the_vllm_that_is_installed() -> None:
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        pytest.skip("vLLM is not installed")
    source = (Path(found.origin).parent / "config" / "lora.py").read_text()
    line = re.search(r"MaxLoRARanks = Literal\[([\d, ]+)\]", source)
    assert line is not None and tuple(map(int, line[1].split(","))) == RANKS


def test_own_arguments_come_last_so_that_they_win(model: Path) -> None:
    assert words(model, arguments=["--seed", "9"])[-2:] == ["--seed", "9"]


def test_the_cache_is_what_the_requests_can_fill_within_a_quarter_of_what_is_free(model: Path) -> None:
    a_token = 2 * 30 * 3 * 64 * 4
    settings = EngineSettings(max_model_len=512, concurrency=8)
    assert cache_bytes(settings, model, CPU) == 2 * 8 * 512 * a_token
    assert cache_bytes(replace(settings, dtype="bfloat16"), model, CPU) == 8 * 512 * a_token
    assert cache_bytes(EngineSettings(), model, CPU) == 4 * GIB
    assert cache_bytes(EngineSettings(), model, replace(CPU, free_bytes=6 * GIB)) == 6 * GIB // 4
    assert cache_bytes(EngineSettings(memory_gib=1.5), model, CPU) == 3 * GIB // 2


def test_every_core_that_the_process_may_use_is_bound(tmp_path: Path) -> None:
    environment = server_environment(EngineSettings(), CPU, {}, plugin=tmp_path)
    assert environment["VLLM_CPU_OMP_THREADS_BIND"] == "0,1,5"
    assert environment["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in server_environment(EngineSettings(), GPU, {}, plugin=tmp_path)


def test_telemetry_is_off_and_adapters_may_be_loaded_while_running(tmp_path: Path) -> None:
    for machine in (CPU, GPU):
        environment = server_environment(EngineSettings(), machine, {}, plugin=tmp_path)
        assert (environment["VLLM_NO_USAGE_STATS"], environment["DO_NOT_TRACK"]) == ("1", "1")
        assert environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"


def test_what_the_user_has_set_stays_and_lists_are_added_to(tmp_path: Path) -> None:
    inherited = {"VLLM_CPU_OMP_THREADS_BIND": "1", "PYTHONPATH": "/mine", "LD_PRELOAD": "/mine.so", "HOME": "/home/me"}
    environment = server_environment(EngineSettings(), CPU, inherited, plugin=tmp_path)
    assert (environment["VLLM_CPU_OMP_THREADS_BIND"], environment["HOME"]) == ("1", "/home/me")
    assert environment["PYTHONPATH"] == f"{tmp_path}:/mine"
    assert environment["LD_PRELOAD"].split(":")[0] == "/mine.so"


def test_intels_openmp_of_the_interpreter_that_runs_vllm_is_preloaded(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "bin" / "python").touch()
    library = tmp_path / "lib" / "libiomp5.so"
    library.touch()
    settings = EngineSettings(python=str(tmp_path / "bin" / "python"))
    if sys.platform.startswith("linux"):
        assert str(library) in preloads(settings, {}).split(":")
        assert str(library) not in preloads(settings, {"LD_PRELOAD": "/other/libiomp5.so"}).split(":")


def test_the_plugin_is_found_by_an_interpreter_without_agentloop(tmp_path: Path) -> None:
    folder = lay_plugin(tmp_path)
    code = "from importlib.metadata import entry_points as e; print([p.load().__module__ for p in e(group='vllm.general_plugins')])"
    found = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": str(folder)}, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "['agentloop_cpu_lora']"
