"""What an engine is: prompt ids in; completion ids and their log-probabilities out; adapters by versioned name.

Every engine (vLLM over HTTP, transformers in-process, a script for tests) keeps the same contract, and `tests/engine/` runs the same
tests over all:

- ids are never decoded and encoded again on the way;
- a turn stops by token id, never by string, and the stop token is the last completion id;
- log-probabilities are natural logarithms of the distribution that was sampled from (after temperature);
- a completion that is constrained to `choices` is one of them, whatever the model would rather say;
- an adapter is loaded once under a name that contains its content hash, and never changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from agentloop.errors import RunFailed

BASE = "base"
"""The adapter name that stands for the bare base model."""


@dataclass(frozen=True, slots=True)
class AdapterVersion:
    """One immutable version of a role's adapter.

    Attributes:
        name: Versioned name, "ROLE-ITERATION-HASH12", unique for ever.
        path: Folder with `adapter_config.json` and `adapter_model.safetensors`.
        content_hash: SHA-256 of configuration and weights, in hex.
    """

    name: str
    path: Path
    content_hash: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One completion to sample.

    Attributes:
        prompt_ids: The whole context.
        max_tokens: Most ids to produce, stop token included.
        stop_token_ids: Ids that end the completion.
        temperature: 0 means greedy; log-probabilities are then those at temperature 1.
        top_p: 1.0 means no truncation.
        top_k: 0 means no truncation.
        seed: For reproducible draws on engines that are deterministic; None leaves it to the engine.
        adapter: Versioned name of a loaded adapter, or `BASE`.
        choices: Texts of which the completion must be one, before its stop token; () leaves it free. Log-probabilities are then those of
            the distribution over what may still become a choice, so a constrained completion has no importance ratio. Where `max_tokens`
            cuts it, it is the beginning of one.

    Raises:
        ValueError: There are choices and no stop token to end one, or a choice is empty.
    """

    prompt_ids: tuple[int, ...]
    max_tokens: int
    stop_token_ids: tuple[int, ...]
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    adapter: str = BASE
    choices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.choices and (not self.stop_token_ids or not all(self.choices)):
            raise ValueError("a completion that is one of several choices needs a stop token, and no choice may be empty")


@dataclass(frozen=True, slots=True)
class Generation:
    """What came back for one request.

    Attributes:
        ids: Completion ids, the stop token included when `finish` is "stop".
        logprobs: Natural log-probabilities of `ids`, same length.
        finish: "stop" if the last id is a stop token, "length" if `max_tokens` or the context ended it.
        prompt_tokens: Length of the prompt.
        cached_tokens: How many of them the engine took from its prefix cache.
        seconds: Wall-clock seconds from sending to receiving.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Literal["stop", "length"]
    prompt_tokens: int
    cached_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine says of itself, kept with every measurement."""

    kind: str
    model: str
    dtype: str
    max_model_len: int
    max_adapters: int
    versions: dict[str, str]


class EngineFailure(RunFailed):
    """An engine that could not answer. `kind` is counted in reports.

    Kinds: "connection" (unreachable after the bounded retries), "timeout", "context" (the prompt does not fit), "adapter" (unknown or
    refused adapter), "memory" (the model does not fit), "port" (already in use), "crash" (the server died), "request" (anything else it
    refused).
    """

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(message)


@runtime_checkable
class Engine(Protocol):
    """Generates from the base model and from any loaded adapter, mixed freely among concurrent requests."""

    @property
    def info(self) -> EngineInfo:
        """What this engine is; valid once it has started."""
        ...

    async def generate(self, request: GenerationRequest) -> Generation:
        """Sample one completion. Raises `EngineFailure`; retries passing faults itself, a bounded number of times."""
        ...

    async def score(self, ids: tuple[int, ...], adapter: str = BASE) -> tuple[float, ...]:
        """Log-probabilities of `ids[1:]` given what precedes each, at temperature 1; length is `len(ids) - 1`."""
        ...

    async def load_adapter(self, adapter: AdapterVersion) -> None:
        """Make `adapter.name` usable. Loading a loaded version again does nothing."""
        ...

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter once no request uses it. Unloading an unknown name does nothing."""
        ...

    async def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that are loaded now, sorted."""
        ...

    async def close(self) -> None:
        """Release everything; idempotent."""
        ...
