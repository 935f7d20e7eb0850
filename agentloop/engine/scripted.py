"""An engine without a model: a function answers each request. For tests, and to prove that a run is reproducible to the last byte.

The script is a function `(prompt_text: str, request: GenerationRequest) -> str`, given as "file.py:function". Its text is tokenised,
the first of the request's stop tokens is put at the end, and the whole is cut at `max_tokens`. To be reproducible it should depend on
nothing but its two arguments (the request has the seed). Where the request has choices, the one that begins most like the script's text is
taken, the first of equals.

Log-probabilities follow a rule, the same for `generate` and `score` and independent of the temperature: the log-probability of id `i`
at position `p` of the context under adapter `a` is -(u + 2^-32), with u in [0, 1) the first four bytes of SHA-256("a|p|i"), read
big-endian, over 2^32.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from agentloop.engine.adapter import CONFIG_NAME
from agentloop.engine.base import BASE, AdapterVersion, EngineFailure, EngineInfo, Generation, GenerationRequest
from agentloop.engine.pool import AdapterPool
from agentloop.engine.settings import EngineSettings
from agentloop.errors import Mistake, nearest

Script = Callable[[str, GenerationRequest], str]


class Coder(Protocol):
    """What is needed of a tokenizer; those of transformers have it."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, token_ids: Any, *, skip_special_tokens: bool) -> Any: ...


class ScriptedEngine:
    """Answers with a script's text.

    Args:
        tokenizer: Turns ids into the text that the script sees, and its answer into ids.
        script: See the module's docstring.
        adapters: Roles with an adapter; twice as many versions may be loaded at once.
        max_model_len: Longest context in tokens.
        model: What to report as the model.
    """

    def __init__(
        self, tokenizer: Coder, script: Script, *, adapters: int = 0, max_model_len: int = 1 << 20, model: str = "scripted"
    ) -> None:
        self._tokenizer = tokenizer
        self._script = script
        self._pool = AdapterPool(limit=2 * adapters)
        self._info = EngineInfo(
            kind="scripted",
            model=model,
            dtype="none",
            max_model_len=max_model_len,
            max_adapters=self._pool.limit,
            versions={},
        )

    @classmethod
    def open(cls, settings: EngineSettings, model_path: Path, *, adapters: int) -> ScriptedEngine:
        """The engine of `settings.script`, with the tokenizer of `model_path`. Raises `Mistake`."""
        from transformers import AutoTokenizer

        assert settings.script is not None
        script = load_script(settings.script)
        longest = settings.max_model_len or _own_limit(model_path)
        tokenizer = AutoTokenizer.from_pretrained(model_path, local_files_only=True)
        return cls(tokenizer, script, adapters=adapters, max_model_len=longest, model=str(model_path))

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        return self._info

    async def generate(self, request: GenerationRequest) -> Generation:
        """The script's answer. Raises `EngineFailure`; an exception in the script is one of kind "request"."""
        room = self._info.max_model_len - len(request.prompt_ids)
        if room < 1:
            raise EngineFailure(
                "context", f"a prompt of {len(request.prompt_ids)} tokens leaves no room in a context of {self._info.max_model_len} tokens"
            )
        with self._pool.use(request.adapter):
            prompt = self._tokenizer.decode(list(request.prompt_ids), skip_special_tokens=False)
            try:
                text = self._script(prompt, request)
            except Exception as error:
                raise EngineFailure("request", f"the script failed: {type(error).__name__}: {error}") from error
        if request.choices:
            text = max(request.choices, key=lambda choice: _shared(choice, text))
        ids = [token for token in self._tokenizer.encode(text, add_special_tokens=False) if token not in request.stop_token_ids]
        ids = (ids + list(request.stop_token_ids[:1]))[: min(request.max_tokens, room)]
        start = len(request.prompt_ids)
        return Generation(
            ids=tuple(ids),
            logprobs=tuple(ruled_logprob(request.adapter, start + offset, token) for offset, token in enumerate(ids)),
            finish="stop" if ids[-1] in request.stop_token_ids else "length",
            prompt_tokens=start,
        )

    async def score(self, ids: tuple[int, ...], adapter: str = BASE) -> tuple[float, ...]:
        """Log-probabilities of `ids[1:]` by the rule."""
        if len(ids) >= self._info.max_model_len:
            raise EngineFailure("context", f"{len(ids)} tokens do not fit a context of {self._info.max_model_len} tokens to be scored")
        with self._pool.use(adapter):
            return tuple(ruled_logprob(adapter, position, token) for position, token in enumerate(ids) if position)

    async def load_adapter(self, adapter: AdapterVersion) -> None:
        """Make `adapter.name` usable; the folder must be an adapter's, its weights are not read."""
        if not self._pool.check_room(adapter):
            return
        if not (adapter.path / CONFIG_NAME).is_file():
            raise EngineFailure("adapter", f"adapter {adapter.name!r} in {adapter.path} was refused: it has no {CONFIG_NAME}")
        self._pool.add(adapter)

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter. Unloading an unknown name does nothing."""
        self._pool.remove(name)

    async def adapters(self) -> tuple[str, ...]:
        """Names of what is loaded, sorted."""
        return self._pool.names

    async def close(self) -> None:
        """Nothing to release."""


def ruled_logprob(adapter: str, position: int, token: int) -> float:
    """The made-up log-probability of the module's docstring; in (-1, 0)."""
    first = hashlib.sha256(f"{adapter}|{position}|{token}".encode()).digest()[:4]
    return -(int.from_bytes(first, "big") + 1) / 2**32


def load_script(reference: str) -> Script:
    """The function that "file.py:function" names. Raises `Mistake` for a missing file, a broken one or a missing function."""
    file, separator, name = reference.rpartition(":")
    if not separator or not file.endswith(".py"):
        raise Mistake("the engine's script is not a reference to a function", found=reference, expected="file.py:function")
    path = Path(file).expanduser()
    if not path.is_file():
        raise Mistake("the engine's script does not exist", found=file, expected="a Python file")
    spec = importlib.util.spec_from_file_location(f"agentloop_script_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise Mistake(f"the engine's script cannot be loaded ({type(error).__name__}: {error})", file=str(path)) from error
    script = getattr(module, name, None)
    if not callable(script):
        functions = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise Mistake(f"the engine's script has no function {name!r}", file=str(path), nearest=nearest(name, functions))
    return script


def _shared(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _own_limit(model_path: Path) -> int:
    try:
        config = json.loads((model_path / "config.json").read_text())
    except (FileNotFoundError, ValueError):
        return 1 << 20
    return int(config.get("max_position_embeddings") or 1 << 20)
