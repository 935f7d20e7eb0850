"""The adapter check: proves that what an engine *generates* with is the adapter that was trained, and nothing that it had cached before.

After a version is loaded, every other adapter that is there, and the base, first work on a fixed prefix, so that it lies in the prefix
cache under each of them. Then the new version generates from that prefix, and the log-probabilities of what it sampled are compared
with a PEFT forward in float32. Scoring a prompt would not do: vLLM computes prompt log-probabilities without its prefix cache, which
proves the weights and not what generation uses.

Two statistics decide. The *error* is the mean absolute difference to the forward with the adapter. The *share* asks whose
log-probabilities they are: with the differences d between the forwards with the adapter and without it, and s between what was served
and the forward without it, it is (s . d) / (d . d): 1 where the adapter is served, 0 where the base is. Rounding averages out in it, so
it works in bfloat16 too, where the error alone cannot tell a weak adapter from none. Bounds and what they rest on: docs/engines.md.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentloop.engine.base import BASE, AdapterVersion, Engine, GenerationRequest
from agentloop.errors import RunFailed

PREFIX_TOKENS = 288
"""Length of the prefix; vLLM caches whole blocks, of up to 128 tokens on a CPU, so this holds at least two of them."""

DRAWS = 4
DRAW_TOKENS = 24

MEAN_BOUNDS = {"float32": 2e-3, "float16": 3e-2, "bfloat16": 1.5e-1}
"""Largest mean absolute error (nats a token) by dtype of the engine."""

LOW_SHARE, HIGH_SHARE = 0.7, 1.3
"""What the share must lie between, where the adapter changes the model enough to tell."""

TELLING = 3.0
"""The share counts where the adapter moves log-probabilities by this many times the error that its estimate would have; see `_telling`."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a passed check found.

    Attributes:
        adapter: Versioned name.
        tokens: Sampled tokens that were compared.
        cached_tokens: Prompt tokens that generation took from the prefix cache, over all draws.
        mean_error: Mean absolute difference of log-probabilities to the PEFT forward, in nats.
        max_error: Largest.
        bound: What `mean_error` had to stay under.
        effect: Mean absolute difference that the adapter makes to the base's log-probabilities.
        share: See the module's docstring; None where the adapter is too weak for it.
    """

    adapter: str
    tokens: int
    cached_tokens: int
    mean_error: float
    max_error: float
    bound: float
    effect: float
    share: float | None


async def check_adapter(engine: Engine, version: AdapterVersion, model_path: Path, probe: Sequence[int]) -> CheckResult:
    """Check that `engine` generates with `version`, which must be loaded.

    Args:
        engine: Any engine with real weights.
        version: The version to check.
        model_path: Folder of the base model.
        probe: Some ids that are usual for the model; repeated to the length of the prefix.

    Raises:
        RunFailed: It does not; the message has the numbers.
    """
    prefix = prefix_of(probe, engine.info.max_model_len)
    for other in (BASE, *(name for name in await engine.adapters() if name != version.name)):
        await engine.generate(_request(prefix, other, seed=0, tokens=1))
    draws = await asyncio.gather(*(engine.generate(_request(prefix, version.name, seed, DRAW_TOKENS)) for seed in range(DRAWS)))
    # Once more, now that the prefix is surely cached under this version too.
    draws.append(await engine.generate(_request(prefix, version.name, DRAWS, DRAW_TOKENS)))
    completions = [draw.ids for draw in draws]
    with_adapter, without = await asyncio.to_thread(_forward, model_path, version.path, prefix, completions)
    served = [logprob for draw in draws for logprob in draw.logprobs]
    return judge(
        version.name,
        engine.info.dtype,
        served,
        with_adapter,
        without,
        cached_tokens=sum(draw.cached_tokens for draw in draws),
    )


def prefix_of(probe: Sequence[int], max_model_len: int) -> tuple[int, ...]:
    """`probe` repeated to `PREFIX_TOKENS`, or to what leaves room for the draws. Raises `ValueError` for an empty probe."""
    if not probe:
        raise ValueError("the adapter check needs a probe of at least one id")
    length = min(PREFIX_TOKENS, max_model_len - DRAW_TOKENS - 1)
    return (tuple(probe) * math.ceil(length / len(probe)))[:length]


def judge(
    name: str,
    dtype: str,
    served: Sequence[float],
    with_adapter: Sequence[float],
    without: Sequence[float],
    *,
    cached_tokens: int = 0,
) -> CheckResult:
    """Compare log-probabilities of the same tokens: as served, and by forwards with and without the adapter; each of shape (N,).

    Raises:
        RunFailed: They are not the adapter's.
    """
    errors = [abs(a - b) for a, b in zip(served, with_adapter, strict=True)]
    moved = [a - b for a, b in zip(with_adapter, without, strict=True)]
    bound = MEAN_BOUNDS.get(dtype, MEAN_BOUNDS["bfloat16"])
    mean_error = sum(errors) / len(errors)
    effect = sum(map(abs, moved)) / len(moved)
    share = _share(served, without, moved) if _telling(moved, dtype) else None
    result = CheckResult(name, len(errors), cached_tokens, mean_error, max(errors), bound, effect, share)
    if not mean_error <= bound or (share is not None and not LOW_SHARE <= share <= HIGH_SHARE):
        words = "" if share is None else f" and a share of {share:.2f} of its effect, where 1 is the adapter and 0 the base"
        raise RunFailed(
            f"the engine does not generate with adapter {name!r}: over {len(errors)} sampled tokens its log-probabilities differ from a"
            f" PEFT forward by {mean_error:.2g} on average (at most {max(errors):.2g}; allowed in {dtype}: {bound:g}){words};"
            " a wrong or stale adapter is served, nothing sampled with it can be trusted"
        )
    return result


def _share(served: Sequence[float], without: Sequence[float], moved: Sequence[float]) -> float:
    return sum((a - b) * d for a, b, d in zip(served, without, moved, strict=True)) / sum(d * d for d in moved)


def _telling(moved: Sequence[float], dtype: str) -> bool:
    """Whether the adapter moves the log-probabilities enough for the share, whose standard error is rounding over the norm of `moved`."""
    norm = math.sqrt(sum(d * d for d in moved))
    rounding = MEAN_BOUNDS.get(dtype, MEAN_BOUNDS["bfloat16"]) / 3
    return norm * (1.0 - LOW_SHARE) > TELLING * rounding


def _request(prefix: tuple[int, ...], adapter: str, seed: int, tokens: int) -> GenerationRequest:
    return GenerationRequest(prompt_ids=prefix, max_tokens=tokens, stop_token_ids=(), temperature=1.0, seed=seed, adapter=adapter)


def _forward(
    model_path: Path, adapter_path: Path, prefix: tuple[int, ...], completions: Sequence[tuple[int, ...]]
) -> tuple[list[float], list[float]]:
    """Log-probabilities of all completions after `prefix`, with the adapter and without, in float32 on the CPU; each of shape (N,)."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32, local_files_only=True)
    model = PeftModel.from_pretrained(base, str(adapter_path)).eval()

    def logprobs() -> list[float]:
        found: list[float] = []
        for completion in completions:
            ids_1T = torch.tensor([[*prefix, *completion]])
            logits_TV = model(input_ids=ids_1T, logits_to_keep=len(completion) + 1).logits[0, :-1].float()
            found += logits_TV.log_softmax(dim=-1).gather(1, ids_1T[0, -len(completion) :, None])[:, 0].tolist()
        return found

    with torch.inference_mode():
        with_adapter = logprobs()
        with model.disable_adapter():
            return with_adapter, logprobs()
