"""vLLM over HTTP: prompt ids in; completion ids and log-probabilities out.

Only `/v1/completions` with token ids is used, so nothing is templated, decoded or encoded on the way. Every sampling parameter is sent
explicitly, because a server may have been started with a model repository's defaults. A request ends by `stop_token_ids` alone
(`ignore_eos`), and vLLM returns the stop token as the last id.

Passing faults (a connection that broke, a 5xx) are tried again a bounded number of times; where the server is ours and has died, it is
started again with its adapters in place before the next try. A request that the server refused (4xx) and one that took too long are
never sent again.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import aiohttp
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from agentloop.engine import probe
from agentloop.engine.base import BASE, AdapterVersion, EngineFailure, EngineInfo, Generation, GenerationRequest
from agentloop.engine.pool import AdapterPool
from agentloop.engine.server import VLLMServer

KEY_VARIABLE = "VLLM_API_KEY"
"""Environment variable with the key of a server that asks for one; it is sent and never stored."""


class _PassingFault(Exception):
    """A fault that may be gone at the next try."""


class VLLMEngine:
    """An engine that a vLLM server answers for.

    Args:
        url: Address of the server, "http://host:port". Ignored where `server` is given.
        server: Our own server process, started again when it dies; None where the server is someone else's.
        adapters: Roles with an adapter; twice as many versions may be loaded at once (the present and the next of each).
        request_timeout: Seconds until a request must be answered.
        retries: How often a request is sent again after a passing fault.
    """

    def __init__(
        self,
        url: str = "",
        *,
        server: VLLMServer | None = None,
        adapters: int = 0,
        request_timeout: float = 600.0,
        retries: int = 3,
    ) -> None:
        self._server = server
        self._fixed_url = url.rstrip("/")
        self._timeout = request_timeout
        self._retries = retries
        self._pool = AdapterPool(limit=2 * adapters)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reviving: asyncio.Lock | None = None
        self._incarnation = server.starts if server is not None else 0
        self._loads = 0
        self._suspect = False
        self._info: EngineInfo | None = None
        self._base_name = BASE

    @property
    def url(self) -> str:
        """Address of the server, without a slash at its end."""
        return self._server.url if self._server is not None else self._fixed_url

    @property
    def info(self) -> EngineInfo:
        """What this engine is; valid after `connect`."""
        if self._info is None:
            raise RuntimeError("the engine is not connected yet: call connect() first")
        return self._info

    async def connect(self, model_path: Path | None = None, dtype: str = "unknown") -> None:
        """Learn what the server runs; where it is not our own process, check that a run can rely on it (`probe.py`).

        Args:
            model_path: Folder of the model that it must run; None takes what it has.
            dtype: What to report as its dtype, which a server does not tell.

        Raises:
            EngineFailure: The server cannot be reached, or does not fit.
        """
        cards = await self._models()
        base = next((card for card in cards if not card.get("parent")), None)
        if base is None:
            raise EngineFailure("request", f"the server at {self.url} serves no base model")
        self._base_name = base["id"]
        served = str(base.get("root") or base["id"])
        if self._server is None:
            if model_path is not None:
                await probe.check_model(self._call, served, model_path)
            await probe.check_logprobs(self._call, self._base_name)
            if self._pool.limit:
                await probe.check_adapters(self._call)
        version = await self._call("GET", "/version", what="its version")
        self._info = EngineInfo(
            kind="vllm",
            model=served,
            dtype=dtype,
            max_model_len=int(base.get("max_model_len") or 0),
            max_adapters=self._pool.limit,
            versions={"vllm": str(version.get("version", "unknown"))},
        )

    async def generate(self, request: GenerationRequest) -> Generation:
        """Sample one completion. Raises `EngineFailure`."""
        room = self.info.max_model_len - len(request.prompt_ids)
        if room < 1:
            raise EngineFailure(
                "context", f"a prompt of {len(request.prompt_ids)} tokens leaves no room in a context of {self.info.max_model_len} tokens"
            )
        body = {
            "model": self._name(request.adapter),
            "prompt": list(request.prompt_ids),
            "max_tokens": min(request.max_tokens, room),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "seed": request.seed,
            "stop_token_ids": list(request.stop_token_ids),
            "ignore_eos": True,
            "skip_special_tokens": False,
            "logprobs": 0,
            "return_token_ids": True,
        }
        if request.choices:
            body["structured_outputs"] = {"choice": list(request.choices)}
        started = time.monotonic()
        with self._pool.use(request.adapter):
            answer = await self._call("POST", "/v1/completions", body, what=f"a completion of up to {body['max_tokens']} tokens")
        choice, usage = answer["choices"][0], answer.get("usage") or {}
        if choice.get("token_ids") is None or choice.get("logprobs") is None:
            raise EngineFailure("request", f"the server at {self.url} returns no token ids or log-probabilities; it is too old for this")
        details = usage.get("prompt_tokens_details") or {}
        ids = tuple(choice["token_ids"])
        stopped = bool(ids) and ids[-1] in request.stop_token_ids
        return Generation(
            ids=ids,
            logprobs=tuple(choice["logprobs"]["token_logprobs"]),
            finish="stop" if stopped else "length",
            prompt_tokens=len(request.prompt_ids),
            cached_tokens=int(details.get("cached_tokens") or 0),
            seconds=time.monotonic() - started,
        )

    async def score(self, ids: tuple[int, ...], adapter: str = BASE) -> tuple[float, ...]:
        """Log-probabilities of `ids[1:]` at temperature 1. vLLM computes them anew, without its prefix cache."""
        if len(ids) >= self.info.max_model_len:
            raise EngineFailure("context", f"{len(ids)} tokens do not fit a context of {self.info.max_model_len} tokens to be scored")
        if len(ids) < 2:
            return ()
        body = {"model": self._name(adapter), "prompt": list(ids), "max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0}
        with self._pool.use(adapter):
            answer = await self._call("POST", "/v1/completions", body, what=f"the log-probabilities of {len(ids)} tokens")
        found = answer["choices"][0]["prompt_logprobs"]
        return tuple(float(found[i][str(ids[i])]["logprob"]) for i in range(1, len(ids)))

    async def load_adapter(self, adapter: AdapterVersion) -> None:
        """Make `adapter.name` usable. Loading a loaded version again does nothing. Raises `EngineFailure` of kind "adapter"."""
        if not self._pool.check_room(adapter):
            return
        if self._server is not None and self._server.slots_stick and self._loads >= self._pool.limit:
            await self._revive(afresh=True)
        await self._load(adapter)
        self._loads += 1
        self._pool.add(adapter)

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter once no request uses it. Unloading an unknown name does nothing."""
        if name not in self._pool:
            return
        await self._pool.drain(name, self._timeout)
        try:
            await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name}, what=f"adapter {name!r} to be unloaded")
        except EngineFailure as failure:
            if failure.kind != "adapter":
                raise
        self._pool.remove(name)

    async def adapters(self) -> tuple[str, ...]:
        """Names that this engine loaded and that the server lists, sorted; other users' adapters on a shared server are not among them."""
        return tuple(sorted(card["id"] for card in await self._models() if card.get("parent") and card["id"] in self._pool))

    async def unload_leftovers(self, folder: Path) -> tuple[str, ...]:
        """Unload what an earlier process of the same run left on a server that outlives it: adapters whose files lie in `folder`.

        Returns their names. Without this every kill would cost a slot of a shared server for ever.
        """
        cards = [card for card in await self._models() if card.get("parent") and card["id"] not in self._pool]
        names = tuple(card["id"] for card in cards if Path(str(card.get("root", ""))).is_relative_to(folder.resolve()))
        for name in names:
            await self._call("POST", "/v1/unload_lora_adapter", {"lora_name": name}, what=f"adapter {name!r} to be unloaded")
        return names

    async def sleep(self) -> None:
        """Let the server give its accelerator's memory up: weights go to the host's, the cache is dropped (vLLM's sleep of level 1).

        Unload all adapters before: what a sleep leaves of them is not relied on (huggingface/trl#5312).

        Raises:
            EngineFailure: It is still awake: it was not started for this, or it cannot.
        """
        await self._call("POST", "/sleep?level=1", what="its accelerator's memory")
        await self._expect(asleep=True)

    async def wake_up(self) -> None:
        """Take the memory back, and be ready. Raises `EngineFailure`."""
        await self._call("POST", "/wake_up", what="a wake-up")
        await self._expect(asleep=False)

    async def _expect(self, *, asleep: bool) -> None:
        answer = await self._call("GET", "/is_sleeping", what="whether it sleeps")
        if answer.get("is_sleeping") is not asleep:
            raise EngineFailure("request", f"vLLM at {self.url} was told to {'sleep' if asleep else 'wake up'} and did not")

    async def close(self) -> None:
        """Close the connections, and the server if it is ours; idempotent."""
        if self._session is not None and not self._session.closed and self._loop is asyncio.get_running_loop():
            await self._session.close()
        self._session = None
        if self._server is not None:
            await self._server.close()

    def _name(self, adapter: str) -> str:
        return self._base_name if adapter == BASE else adapter

    async def _models(self) -> list[dict[str, Any]]:
        answer = await self._call("GET", "/v1/models", what="the list of its models")
        return list(answer["data"])

    async def _load(self, adapter: AdapterVersion) -> None:
        body = {"lora_name": adapter.name, "lora_path": str(adapter.path)}
        try:
            await self._call("POST", "/v1/load_lora_adapter", body, what=f"adapter {adapter.name!r} to be loaded")
        except EngineFailure as failure:
            if "already been loaded" in str(failure):
                return
            if failure.kind in ("request", "connection", "adapter"):
                raise EngineFailure("adapter", f"adapter {adapter.name!r} in {adapter.path} was refused: {failure}") from failure
            raise

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None, *, what: str) -> dict[str, Any]:
        """Send a request, with bounded retries; returns the parsed answer ({} where it is no JSON)."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._retries + 1),
            wait=wait_random_exponential(multiplier=0.2, max=5.0),
            retry=retry_if_exception_type(_PassingFault),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    await self._revive()
                    return await self._once(method, path, body, what)
        except _PassingFault as fault:
            hint = self._server.tail() if self._server is not None else ""
            raise EngineFailure(
                "connection", f"vLLM at {self.url} could not give {what} in {self._retries + 1} tries; last: {fault}{hint}"
            ) from fault
        raise AssertionError("tenacity either returns or raises")

    async def _once(self, method: str, path: str, body: dict[str, Any] | None, what: str) -> dict[str, Any]:
        try:
            async with self._client().request(method, self.url + path, json=body) as response:
                if response.status < 400:
                    return await response.json() if "json" in response.content_type else {}
                text = await response.text()
        except TimeoutError as error:
            raise EngineFailure("timeout", f"waited {self._timeout:g} s for vLLM at {self.url} to give {what}, in vain") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            self._suspect = True
            raise _PassingFault(f"{type(error).__name__}: {error}") from error
        if response.status >= 500 and not _is_adapter_refusal(path):
            raise _PassingFault(f"HTTP {response.status}: {_message(text)}")
        raise EngineFailure(_kind_of(response.status, path, text), _message(text))

    def _client(self) -> aiohttp.ClientSession:
        """The session of the running event loop; made anew when a test or a notebook brings another loop."""
        loop = asyncio.get_running_loop()
        if self._session is None or self._session.closed or self._loop is not loop:
            key = os.environ.get(KEY_VARIABLE)
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout),
                connector=aiohttp.TCPConnector(limit=0),
                headers={"Authorization": f"Bearer {key}"} if key else {},
            )
            self._loop, self._reviving = loop, asyncio.Lock()
        return self._session

    async def _revive(self, *, afresh: bool = False) -> None:
        """Where the server is ours: start it again if it has died or `afresh` is set, and put the adapters back that it lost."""
        if self._server is None:
            return
        self._client()
        assert self._reviving is not None
        if self._suspect:
            await self._server.settle()
            self._suspect = False
        if self._server.alive and self._incarnation == self._server.starts and not afresh:
            return
        async with self._reviving:
            if afresh:
                await self._server.recycle()
            elif not self._server.alive:
                await self._server.restart()
            if self._incarnation != self._server.starts:
                for version in self._pool.versions:
                    await self._put_back(version)
                self._loads = len(self._pool.versions)
                self._incarnation = self._server.starts

    async def _put_back(self, version: AdapterVersion) -> None:
        body = {"lora_name": version.name, "lora_path": str(version.path)}
        try:
            await self._once("POST", "/v1/load_lora_adapter", body, f"adapter {version.name!r} to be put back")
        except EngineFailure as failure:
            if "already been loaded" not in str(failure):
                raise


def _is_adapter_refusal(path: str) -> bool:
    """vLLM answers 500 to an adapter that it cannot read, which no second try mends."""
    return path == "/v1/load_lora_adapter"


def _message(text: str) -> str:
    """The server's own words, without the JSON around them."""
    try:
        parsed = json.loads(text)
        error = parsed.get("error", parsed)
        return str(error.get("message", error))[:2000]
    except (ValueError, AttributeError):
        return text.strip()[:2000] or "no message"


def _kind_of(status: int, path: str, text: str) -> str:
    lowered = text.lower()
    if "context length" in lowered or "max_model_len" in lowered:
        return "context"
    if status == 404 and ("does not exist" in lowered or "cannot be found" in lowered):
        return "adapter"
    return "adapter" if _is_adapter_refusal(path) else "request"
