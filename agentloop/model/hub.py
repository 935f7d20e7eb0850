"""Models from the Hugging Face hub: what is on this machine first, the network second and never for long."""

from __future__ import annotations

import re
from pathlib import Path

from agentloop.errors import Mistake, RunFailed
from agentloop.model.folder import ModelFolder, missing_part

ASK_TIMEOUT = 5.0
"""Seconds to wait for the hub's first answer; a download that has begun may take as long as it needs."""

FILES = ("*.json", "*.jinja", "*.safetensors", "*.model", "merges.txt", "vocab.txt")
"""What a model needs of its repository; other copies of the weights are left out."""


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form OWNER/NAME of a repository on the hub."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) is not None


def from_hub_cache(repository: str, name: str) -> ModelFolder | None:
    """The model as it was downloaded before, without asking the network; None if it is not all there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(repository, allow_patterns=list(FILES), local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return _snapshot(path, repository, name) if missing_part(path) is None else None


def download(repository: str, name: str) -> ModelFolder:
    """Download the model from the hub into the hub's own cache, of which a part that is there already is not fetched again.

    Raises:
        Mistake: The hub says that there is no such model, or none that this user may read.
        RunFailed: The hub cannot be reached, or the download broke.
    """
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        commit = HfApi().model_info(repository, timeout=ASK_TIMEOUT).sha
        path = Path(snapshot_download(repository, revision=commit, allow_patterns=list(FILES), etag_timeout=ASK_TIMEOUT))
    except GatedRepoError as error:
        raise Mistake(f"model {repository!r} is gated: accept its terms on the hub and set HF_TOKEN") from error
    except RepositoryNotFoundError as error:
        raise Mistake(f"the hub has no model {repository!r}", expected="a public one, or HF_TOKEN set for a private one") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        cause = " ".join(str(error).split())[:200] or type(error).__name__
        raise RunFailed(f"model {repository!r} cannot be downloaded from the hub: {cause}") from error
    missing = missing_part(path)
    if missing is not None:
        raise Mistake(f"model {repository!r} on the hub has no {missing}", expected="config.json and safetensors weights")
    return _snapshot(path, repository, name)


def _snapshot(path: Path, repository: str, name: str) -> ModelFolder:
    return ModelFolder(path, name, f"hub:{repository}@{path.name}")
