"""The engine in this process: a transformers model in a thread of its own, for machines without vLLM. It runs on a CPU, on MPS and on CUDA.

Same contract as vLLM, without a prefix cache: `cached_tokens` is always 0. The thread owns the model; the event loop hands it rows and
jobs and is never blocked. Each adapter in use has its own running batch (`batch.py`), and the batches take turns token by token, so
base and adapters mix freely.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from agentloop.engine.base import BASE, AdapterVersion, EngineFailure, EngineInfo, Generation, GenerationRequest
from agentloop.engine.batch import Batch, Row
from agentloop.engine.choice import Choices
from agentloop.engine.pool import AdapterPool
from agentloop.engine.settings import EngineSettings
from agentloop.errors import Mistake

Job = Callable[[], None]
T = TypeVar("T")


class TransformersEngine:
    """Generates with transformers and PEFT in a worker thread. Make it with `open`."""

    def __init__(self, settings: EngineSettings, model_path: Path, model: Any, *, adapters: int) -> None:
        self._settings = settings
        self._model = model
        self._pool = AdapterPool(limit=2 * adapters)
        self._batches: dict[str, Batch] = {}
        self._peft_names: dict[str, str] = {}
        self._serial = 0
        self._tokenizer: Any = None
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        own_limit = int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or 1 << 20)
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self._info = EngineInfo(
            kind="transformers",
            model=str(model_path),
            dtype=str(model.dtype).removeprefix("torch."),
            max_model_len=min(settings.max_model_len or own_limit, own_limit),
            max_adapters=self._pool.limit,
            versions={"transformers": transformers.__version__, "torch": torch.__version__, "device": str(model.device)},
        )
        self._thread = threading.Thread(target=self._work, name="transformers-engine", daemon=True)
        self._thread.start()

    @classmethod
    async def open(cls, settings: EngineSettings, model_path: Path, *, adapters: int) -> TransformersEngine:
        """Load the model. Raises `Mistake` for a wrong folder and `EngineFailure` of kind "memory" or "request"."""
        if not (model_path / "config.json").is_file():
            raise Mistake(
                "not a model folder: it has no config.json", found=str(model_path), expected="a folder with config.json and safetensors"
            )
        model = await asyncio.to_thread(_load_model, settings, model_path)
        return cls(settings, model_path, model, adapters=adapters)

    @property
    def info(self) -> EngineInfo:
        """What this engine is."""
        return self._info

    async def generate(self, request: GenerationRequest) -> Generation:
        """Sample one completion. Raises `EngineFailure`."""
        room = self._info.max_model_len - len(request.prompt_ids)
        if room < 1:
            raise EngineFailure(
                "context", f"a prompt of {len(request.prompt_ids)} tokens leaves no room in a context of {self._info.max_model_len} tokens"
            )
        self._check_ids(request.prompt_ids)
        started = time.monotonic()
        row = Row(request=request, max_tokens=min(request.max_tokens, room), answer=Future())
        if request.choices:
            row.choices = await self._do(lambda: self._choices(request), "the ids of the choices")
        with self._pool.use(request.adapter):
            try:
                self._inbox.put(lambda: self._batch(request.adapter).waiting.append(row))
                await self._wait(row.answer, f"a completion of up to {row.max_tokens} tokens")
            finally:
                row.cancelled = True
        return Generation(
            ids=tuple(row.ids),
            logprobs=tuple(row.logprobs),
            finish="stop" if row.stopped else "length",
            prompt_tokens=len(request.prompt_ids),
            seconds=time.monotonic() - started,
        )

    async def score(self, ids: tuple[int, ...], adapter: str = BASE) -> tuple[float, ...]:
        """Log-probabilities of `ids[1:]` at temperature 1."""
        if len(ids) >= self._info.max_model_len:
            raise EngineFailure("context", f"{len(ids)} tokens do not fit a context of {self._info.max_model_len} tokens to be scored")
        self._check_ids(ids)
        if len(ids) < 2:
            return ()
        with self._pool.use(adapter):
            return await self._do(lambda: self._score(ids, adapter), f"the log-probabilities of {len(ids)} tokens")

    async def load_adapter(self, adapter: AdapterVersion) -> None:
        """Make `adapter.name` usable. Loading a loaded version again does nothing. Raises `EngineFailure` of kind "adapter"."""
        if not self._pool.check_room(adapter):
            return
        try:
            await self._do(lambda: self._load(adapter), f"adapter {adapter.name!r} to be loaded")
        except EngineFailure:
            raise
        except Exception as error:
            raise EngineFailure("adapter", f"adapter {adapter.name!r} in {adapter.path} was refused: {error}") from error
        self._pool.add(adapter)

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter once no request uses it. Unloading an unknown name does nothing."""
        if name not in self._pool:
            return
        await self._pool.drain(name, self._settings.request_timeout)
        await self._do(lambda: self._unload(name), f"adapter {name!r} to be unloaded")
        self._pool.remove(name)

    async def adapters(self) -> tuple[str, ...]:
        """Names of what is loaded, sorted."""
        return self._pool.names

    async def close(self) -> None:
        """End the thread and free the model; idempotent."""
        if self._thread.is_alive():
            self._inbox.put(None)
            await asyncio.to_thread(self._thread.join, 30.0)
        self._model = None

    async def _do(self, job: Callable[[], T], what: str) -> T:
        """Run `job` in the thread, between two tokens."""
        answer: Future[T] = Future()

        def run() -> None:
            try:
                result = job()
            except Exception as error:
                with suppress(InvalidStateError):
                    answer.set_exception(error)
            else:
                with suppress(InvalidStateError):
                    answer.set_result(result)

        self._inbox.put(run)
        return await self._wait(answer, what)

    async def _wait(self, answer: Future[T], what: str) -> T:
        if not self._thread.is_alive():
            raise EngineFailure("crash", "the transformers engine was closed")
        seconds = self._settings.request_timeout
        try:
            return await asyncio.wait_for(asyncio.wrap_future(answer), seconds)
        except TimeoutError as error:
            raise EngineFailure("timeout", f"waited {seconds:g} s for the transformers engine to give {what}, in vain") from error

    def _check_ids(self, ids: tuple[int, ...]) -> None:
        if not ids or min(ids) < 0 or max(ids) >= self._vocabulary:
            raise EngineFailure("request", f"the prompt is empty or has ids outside the vocabulary of {self._vocabulary}")

    # From here on everything runs in the thread.

    def _work(self) -> None:
        """Do jobs as they come; between them, one step for every batch that has something to do."""
        while True:
            busy = [batch for batch in self._batches.values() if batch.busy]
            if not busy or not self._inbox.empty():
                job = self._inbox.get()
                if job is None:
                    break
                job()
                continue
            for name, batch in self._batches.items():
                if batch.busy:
                    self._step(name, batch)
        closed = EngineFailure("crash", "the transformers engine was closed")
        for batch in self._batches.values():
            batch.fail(closed)

    def _step(self, name: str, batch: Batch) -> None:
        others = sum(len(other.rows) for other in self._batches.values() if other is not batch)
        try:
            self._choose(name)
            batch.step(limit=max(1, self._settings.concurrency - others))
        except torch.OutOfMemoryError as error:
            batch.fail(EngineFailure("memory", f"the batch does not fit into memory; set engine.concurrency lower: {error}"))
        except Exception as error:
            batch.fail(EngineFailure("crash", f"the model failed: {type(error).__name__}: {error}"))

    def _choices(self, request: GenerationRequest) -> Choices:
        """The choices in the model's own ids; its tokenizer is loaded when the first request has any."""
        if self._tokenizer is None:
            self._tokenizer = AutoTokenizer.from_pretrained(self._info.model, local_files_only=True)
        texts = [tuple(self._tokenizer.encode(choice, add_special_tokens=False)) for choice in request.choices]
        return Choices(texts, request.stop_token_ids)

    def _batch(self, name: str) -> Batch:
        if name not in self._batches:
            self._batches[name] = Batch(self._model, seed=self._settings.seed)
        return self._batches[name]

    def _choose(self, name: str) -> None:
        """Switch the model to an adapter, or all of them off."""
        if not isinstance(self._model, PeftModel):
            return
        if name == BASE:
            self._model.base_model.disable_adapter_layers()
        else:
            self._model.base_model.enable_adapter_layers()
            self._model.set_adapter(self._peft_names[name])

    @torch.inference_mode()
    def _score(self, ids: tuple[int, ...], adapter: str) -> tuple[float, ...]:
        self._choose(adapter)
        input_1T = torch.tensor([ids], device=self._model.device)
        logprobs_TV = self._model(input_ids=input_1T).logits[0, :-1].float().log_softmax(dim=-1)
        return tuple(logprobs_TV.gather(1, input_1T[0, 1:, None])[:, 0].tolist())

    def _load(self, adapter: AdapterVersion) -> None:
        self._serial += 1
        # PEFT's names are module names, which may hold no dots, so versions get names of their own there.
        peft_name = f"v{self._serial}"
        if isinstance(self._model, PeftModel):
            self._model.load_adapter(str(adapter.path), adapter_name=peft_name)
        else:
            self._model = PeftModel.from_pretrained(self._model, str(adapter.path), adapter_name=peft_name).eval()
            for batch in self._batches.values():
                batch.model = self._model
        self._peft_names[adapter.name] = peft_name

    def _unload(self, name: str) -> None:
        self._batches.pop(name, None)
        peft_name = self._peft_names.pop(name)
        if self._peft_names:
            self._model.set_adapter(next(iter(self._peft_names.values())))
            self._model.delete_adapter(peft_name)
        else:
            # PEFT keeps at least one adapter; without any, the bare model comes back.
            self._model = self._model.unload()
            for batch in self._batches.values():
                batch.model = self._model


def best_device() -> str:
    """ "cuda", "mps" or "cpu", the first that is there."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _load_model(settings: EngineSettings, model_path: Path) -> Any:
    device = best_device()
    dtype = settings.dtype if settings.dtype != "auto" else ("bfloat16" if device == "cuda" else "float32")
    try:
        model = AutoModelForCausalLM.from_pretrained(model_path, dtype=getattr(torch, dtype), local_files_only=True)
        return model.to(device).eval()
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise EngineFailure("memory", f"the model in {model_path} does not fit into memory; take a smaller one: {error}") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise EngineFailure("request", f"transformers cannot load the model in {model_path}: {error}") from error
