"""What can be asked of somebody else's vLLM server before a run relies on it: the model, the meaning of its log-probabilities, adapters at
run time.

A server that was started by `agentloop` needs none of this; one behind a URL may have been started in any way, and most mistakes there
are silent.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from agentloop.engine.base import EngineFailure

Call = Callable[..., Awaitable[dict[str, Any]]]
"""`call(method, path, body, what=...)` of the engine: the parsed answer, or an `EngineFailure`."""

PROBE_TEXT = "def f(x):\n    return 12345 + x  # Ünïcode, 東京 and <tags>"
COLD = 0.5
"""Temperature of the second draw; gaps between processed log-probabilities grow by its inverse."""

log = logging.getLogger(__name__)


async def check_model(call: Call, served: str, model_path: Path) -> None:
    """Check that the server's model is the run's: the same name, or else at least a tokenizer that gives the same ids.

    Raises:
        EngineFailure: The tokenizers differ.
    """
    if Path(served).name.lower() == model_path.name.lower():
        return
    from tokenizers import Tokenizer

    local = Tokenizer.from_file(str(model_path / "tokenizer.json")).encode(PROBE_TEXT, add_special_tokens=False).ids
    body = {"prompt": PROBE_TEXT, "add_special_tokens": False}
    remote = (await call("POST", "/tokenize", body, what="the ids of a probe text")).get("tokens")
    if remote != local:
        raise EngineFailure("request", f"the server runs the model {served!r}, whose tokenizer is another than that of {model_path}")
    log.warning("the server runs the model %r and this run expects %s; the tokenizers agree, weights were not compared", served, model_path)


async def check_logprobs(call: Call, model: str) -> None:
    """Check that log-probabilities are those after temperature.

    Between processed log-probabilities the gap of the two likeliest ids doubles when the temperature halves; between raw ones it stays.

    Raises:
        EngineFailure: They are raw.
    """
    for prompt in ([1, 2, 3], [5], [7, 7]):
        warm, cold = [await _gap(call, model, prompt, temperature) for temperature in (1.0, COLD)]
        if warm > 0.05:
            if cold < warm * (1 + 1 / COLD) / 2:
                raise EngineFailure(
                    "request",
                    "the server returns log-probabilities from before the temperature, which would make importance ratios wrong;"
                    " start it with --logprobs-mode processed_logprobs",
                )
            return
    log.warning(
        "whether the server's log-probabilities are those after temperature could not be told: its likeliest ids are equally likely"
    )


async def check_adapters(call: Call) -> None:
    """Check that adapters can be loaded while the server runs. Raises `EngineFailure` of kind "adapter"."""
    try:
        await call("POST", "/v1/load_lora_adapter", {"lora_name": "", "lora_path": ""}, what="an answer on adapters")
    except EngineFailure as failure:
        if "must be provided" in str(failure):
            return
        raise EngineFailure(
            "adapter",
            "the server loads no adapters while it runs; start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
        ) from failure


async def _gap(call: Call, model: str, prompt: list[int], temperature: float) -> float:
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": 1,
        "temperature": temperature,
        "top_p": 1.0,
        "top_k": 0,
        "logprobs": 2,
        "return_tokens_as_token_ids": True,
    }
    answer = await call("POST", "/v1/completions", body, what="the log-probabilities of one token")
    values = sorted(answer["choices"][0]["logprobs"]["top_logprobs"][0].values(), reverse=True)
    return float(values[0] - values[1])
