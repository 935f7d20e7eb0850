"""Models of the hub: the hub's cache is read without a network, and its refusals are told apart from its absence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from agentloop.errors import Mistake, RunFailed
from agentloop.model import hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://hub.invalid/api/models/org/name"))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache in its own layout, with one complete model org/name."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--org--name"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    (snapshot / "config.json").write_text("{}")
    (snapshot / "model.safetensors").write_bytes(b"")
    return snapshot


def test_a_downloaded_model_is_found_and_its_commit_is_kept(hub_cache: Path) -> None:
    found = hub.from_hub_cache("org/name", "org/name")
    assert found is not None
    assert (found.path, found.source) == (hub_cache, f"hub:org/name@{COMMIT}")


def test_a_half_downloaded_model_does_not_count(hub_cache: Path) -> None:
    (hub_cache / "model.safetensors").unlink()
    assert hub.from_hub_cache("org/name", "org/name") is None


def test_a_model_that_was_never_downloaded_is_not_there(hub_cache: Path) -> None:
    assert hub.from_hub_cache("org/other", "org/other") is None


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (RepositoryNotFoundError("404", response=response(404)), Mistake, "the hub has no model 'org/name'"),
        (GatedRepoError("403", response=response(403)), Mistake, "accept its terms on the hub and set HF_TOKEN"),
        (httpx.ConnectError("Name or service not known"), RunFailed, "cannot be downloaded from the hub: Name or service not known"),
        (httpx.ConnectTimeout("timed out"), RunFailed, "cannot be downloaded from the hub: timed out"),
        (OSError("No space left on device"), RunFailed, "No space left on device"),
    ],
)
def test_what_the_hub_answers_becomes_one_message(monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type, says: str) -> None:
    def refuse(self: Any, repository: str, **options: Any) -> None:
        assert options["timeout"] == hub.ASK_TIMEOUT
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    with pytest.raises(kind) as caught:
        hub.download("org/name", "org/name")
    assert says in str(caught.value)


def test_a_repository_without_weights_is_a_mistake(hub_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (hub_cache / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, repository, **options: SimpleNamespace(sha=COMMIT))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repository, **options: str(hub_cache))
    with pytest.raises(Mistake, match="'org/name' on the hub has no weights"):
        hub.download("org/name", "org/name")


@pytest.mark.parametrize(
    ("name", "is_id"), [("org/name", True), ("a/b.c-d_e", True), ("name", False), ("./x", False), ("a/b/c", False), ("a/", False)]
)
def test_what_looks_like_a_hub_id(name: str, is_id: bool) -> None:
    assert hub.is_hub_id(name) is is_id
