"""What a user may set of an engine: one frozen dataclass, without torch, that a recipe's `engine:` block becomes."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from agentloop.errors import Mistake, nearest

Kind = Literal["auto", "vllm", "transformers", "scripted"]
KINDS: tuple[Kind, ...] = ("auto", "vllm", "transformers", "scripted")
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the highest rank of its adapters."""
LORA_ARGUMENTS = {"--max-loras": "max_loras", "--max-cpu-loras": "max_loras", "--max-lora-rank": "max_lora_rank"}
"""Words for vLLM's command line that a setting stands for: given twice, the other would win and nobody would know."""
LOWEST = {"max_model_len": 1, "max_lora_rank": 1, "max_loras": 1, "concurrency": 1, "retries": 0, "restarts": 0}
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How to get an engine, and within which bounds it works.

    Attributes:
        kind: "vllm" (a process of its own, spoken to over HTTP), "transformers" (in this process), "scripted" (a function, for tests) or
            "auto": vllm where it is installed, else transformers.
        url: Address of a running vLLM server, "http://host:port"; None starts one here.
        port: Port of the server that is started here; None takes a free one.
        python: Interpreter of the virtual environment that holds vLLM; None is this one.
        dtype: Of weights and activations; "auto" is float32 on a CPU (where the adapter check is sharp) and bfloat16 on an accelerator.
        max_model_len: Longest context in tokens, completion included; None is the model's own limit.
        max_lora_rank: Highest adapter rank that is served; on the server it is rounded up to one of `RANKS`.
        max_loras: Adapter slots of the server, one behind `url` too; None is what the roles need (`launch.slots`).
        memory_gib: GiB for the prefix and key-value cache on a CPU; None is a quarter of what is free, at most 4.
        gpu_memory_utilization: Share of an accelerator's memory that vLLM may take.
        while_training: What our own server does while a training needs the only accelerator: "stop", or "sleep", vLLM's level 1.
        concurrency: Requests that the engine works on at once; more wait in its queue.
        start_timeout: Seconds until a server must answer after its start.
        request_timeout: Seconds until a request must be answered.
        retries: How often a request is sent again after a passing fault (a connection that broke, a 5xx).
        restarts: How often a crashed server is started again in one run.
        seed: Seed of the engine itself, for requests that bring none.
        script: The scripted engine's function, "file.py:function".
        arguments: Further command-line arguments of the vLLM server, as a list of words.
    """

    kind: Kind = "auto"
    url: str | None = None
    port: int | None = None
    python: str | None = None
    dtype: str = "auto"
    max_model_len: int | None = None
    max_lora_rank: int = 64
    max_loras: int | None = None
    memory_gib: float | None = None
    gpu_memory_utilization: float = 0.9
    while_training: Literal["stop", "sleep"] = "stop"
    concurrency: int = 64
    start_timeout: float = 600.0
    request_timeout: float = 600.0
    retries: int = 3
    restarts: int = 3
    seed: int = 0
    script: str | None = None
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", tuple(self.arguments))
        for name, valid in (("kind", KINDS), ("dtype", DTYPES), ("while_training", ("stop", "sleep"))):
            value = getattr(self, name)
            if value not in valid:
                raise Mistake(f"unknown engine {name}", found=value, expected=" | ".join(valid), nearest=nearest(str(value), valid))
        for name, low in LOWEST.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise Mistake(f"engine {name} is out of range", found=value, expected=f"at least {low}")
        if self.max_lora_rank > RANKS[-1]:
            raise Mistake("engine max_lora_rank is out of range", found=self.max_lora_rank, expected=f"at most {RANKS[-1]}, vLLM's highest")
        for name in ("start_timeout", "request_timeout", "memory_gib", "gpu_memory_utilization"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise Mistake(f"engine {name} is out of range", found=value, expected="more than 0")
        for word in self.arguments:
            key = LORA_ARGUMENTS.get(word.partition("=")[0].replace("_", "-"))
            if key is not None:
                raise Mistake(f"{word!r} is for the engine's key {key!r} to say", expected=f"{key}: NUMBER")
        if self.url is not None and not self.url.startswith(("http://", "https://")):
            raise Mistake("engine url is not an address", found=self.url, expected="http://HOST:PORT")
        if self.kind == "scripted" and self.script is None:
            raise Mistake("engine kind 'scripted' needs a script", expected="script: file.py:function")

    @classmethod
    def of(cls, values: dict[str, Any]) -> EngineSettings:
        """Settings from a mapping such as a recipe's `engine:` block; an unknown key is a `Mistake`."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise Mistake(f"unknown key {key!r} in engine", expected=", ".join(known), nearest=nearest(key, known))
        return cls(**values)

    def resolved_kind(self) -> Literal["vllm", "transformers", "scripted"]:
        """The engine that "auto" means on this machine; looks for vLLM without importing it."""
        if self.kind != "auto":
            return self.kind
        if self.url is not None or self.python is not None or importlib.util.find_spec("vllm") is not None:
            return "vllm"
        return "transformers"

    def interpreter(self) -> Path | None:
        """The interpreter that runs vLLM, or None for this one. Raises `Mistake` where the path is none."""
        if self.python is None:
            return None
        path = Path(self.python).expanduser()
        if not path.is_file():
            raise Mistake("engine python is not an interpreter", found=self.python, expected="a path such as ENV/bin/python")
        return path
