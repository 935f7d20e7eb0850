"""A model behind a URL that speaks OpenAI's chat protocol: text in, text out, and no ids. For judges only.

Such a model has a tokenizer of its own, so its turns hold no ids and nothing can train on them (`Turn.foreign`). Passing faults (a
connection that broke, 429, a 5xx) are tried again a bounded number of times; what was refused or took too long is not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from agentloop.engine.base import EngineFailure
from agentloop.errors import Mistake

TOO_MANY = 429
LIMIT_KEYS = ("max_tokens", "max_completion_tokens")
"""What servers call the limit of an answer: the protocol's first name for it, and the one that OpenAI's reasoning models insist on."""


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """What came back.

    Attributes:
        text: The answer; "" where the model only thought.
        finish: "stop", or "length" where the limit cut it.
        prompt_tokens: As the server counts them; 0 where it does not say.
        completion_tokens: Likewise.
        seconds: Wall-clock seconds.
    """

    text: str
    finish: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    seconds: float


class _PassingFault(Exception):
    """A fault that may be gone at the next try."""


class ChatServer:
    """A model at an address.

    Args:
        url: "https://HOST/v1", with or without the "/v1".
        model: Name of the model there; None takes the first that the server lists.
        key: Name of the environment variable with the key; None sends none. The key is sent and never stored or shown.
        request_timeout: Seconds until a request must be answered.
        retries: How often a request is sent again after a passing fault.
        pause: Seconds that the first pause before a retry may last; the later ones are longer, up to 20.

    Raises:
        Mistake: The environment variable is not set.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        key: str | None = None,
        request_timeout: float = 600.0,
        retries: int = 3,
        pause: float = 0.5,
    ) -> None:
        self.url = url.rstrip("/").removesuffix("/v1") + "/v1"
        self._model = model
        self._key = None if key is None else os.environ.get(key)
        self._timeout = request_timeout
        self._retries = retries
        self._pause = pause
        self._limit_key = LIMIT_KEYS[0]
        self._session: aiohttp.ClientSession | None = None
        if key is not None and not self._key:
            raise Mistake(f"the environment variable {key} is not set", expected=f"the key for {self.url} in it")

    @property
    def name(self) -> str:
        """The model and where it is, as turns record it."""
        return f"{self._model or 'a model'} at {urlsplit(self.url).netloc}"

    async def connect(self) -> None:
        """Find out the model's name where it was not given. Raises `EngineFailure`."""
        if self._model is None:
            answer = await self._call("GET", "/models", None, "the list of its models")
            names = [str(card["id"]) for card in answer.get("data") or ()]
            if not names:
                raise EngineFailure("request", f"the server at {self.url} lists no model; name one: model: NAME")
            self._model = names[0]

    async def complete(
        self, messages: Sequence[dict[str, str]], *, max_tokens: int, temperature: float, seed: int | None = None
    ) -> ChatAnswer:
        """One answer to a chat. Raises `EngineFailure`."""
        await self.connect()
        body: dict[str, Any] = {"model": self._model, "messages": list(messages), "temperature": temperature}
        if seed is not None:
            body["seed"] = seed
        began = time.monotonic()
        what = f"an answer of up to {max_tokens} tokens"
        try:
            answer = await self._call("POST", "/chat/completions", body | {self._limit_key: max_tokens}, what)
        except EngineFailure as failure:
            if LIMIT_KEYS[1] not in str(failure) or self._limit_key == LIMIT_KEYS[1]:
                raise
            self._limit_key = LIMIT_KEYS[1]
            answer = await self._call("POST", "/chat/completions", body | {self._limit_key: max_tokens}, what)
        try:
            choice = answer["choices"][0]
            text = choice["message"].get("content") or ""
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise EngineFailure("request", f"{self.url} gave no chat completion: {json.dumps(answer)[:500]}") from error
        usage = answer.get("usage") or {}
        return ChatAnswer(
            text=str(text),
            finish="length" if choice.get("finish_reason") == "length" else "stop",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
            seconds=time.monotonic() - began,
        )

    async def close(self) -> None:
        """Close the connections; idempotent."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(self, method: str, path: str, body: dict[str, Any] | None, what: str) -> dict[str, Any]:
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self._retries + 1),
            wait=wait_random_exponential(multiplier=self._pause, max=20.0),
            retry=retry_if_exception_type(_PassingFault),
            reraise=True,
        )
        try:
            async for attempt in retrying:
                with attempt:
                    return await self._once(method, path, body, what)
        except _PassingFault as fault:
            raise EngineFailure("connection", f"{self.url} could not give {what} in {self._retries + 1} tries; last: {fault}") from fault
        raise AssertionError("tenacity either returns or raises")

    async def _once(self, method: str, path: str, body: dict[str, Any] | None, what: str) -> dict[str, Any]:
        if self._session is None:
            headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
            timeout = aiohttp.ClientTimeout(total=self._timeout)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0), headers=headers)
        try:
            async with self._session.request(method, self.url + path, json=body) as response:
                text = await response.text()
        except TimeoutError as error:
            raise EngineFailure("timeout", f"waited {self._timeout:g} s for {self.url} to give {what}, in vain") from error
        except (aiohttp.ClientError, ConnectionError) as error:
            raise _PassingFault(f"{type(error).__name__}: {error}") from error
        if response.status == TOO_MANY or response.status >= 500:
            raise _PassingFault(f"HTTP {response.status}: {text[:500]}")
        if response.status >= 400:
            kind = "context" if "context length" in text.lower() or "context_length" in text.lower() else "request"
            raise EngineFailure(kind, f"{self.url} refused to give {what}: HTTP {response.status}: {text[:1000]}")
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise EngineFailure("request", f"{self.url} did not answer with JSON: {text[:500]}") from error
        return parsed if isinstance(parsed, dict) else {"answer": parsed}
