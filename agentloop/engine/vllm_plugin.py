"""A vLLM plugin that makes LoRA on a CPU right and fast: one matrix product for each adapter present in the batch.

vLLM's own CPU operations gather a copy of the adapter's weights for every token, and read the *last* adapter slot for tokens that have
none (index -1), which is wrong as soon as that slot is taken; unloading does not empty it. Here tokens are grouped by adapter once a
step, every group is one product, and tokens without an adapter are left alone.

vLLM finds `register` through the entry point `vllm.general_plugins` and calls it in each of its processes. The file stands alone (no
import of agentloop), so that it can be laid into an interpreter that has only vLLM. It does nothing, and logs why, where vLLM's
functions are not the ones it was written for.
"""

from __future__ import annotations

import inspect
import os
import sys
from typing import Any

ACTIVE = "agentloop_cpu_lora: LoRA on this CPU is one matrix product an adapter"
"""Printed to standard error where the operations were replaced."""

PREFILL = ("b_seq_start_loc", "seq_len_tensor", "lora_indices_tensor", "batches", "max_seq_length", "token_nums")
EXPECTED: dict[str, tuple[str, ...]] = {
    "bgmv_shrink": ("inputs", "lora_b_weights", "output_tensor", "lora_indices_tensor", "scaling"),
    "bgmv_expand": ("inputs", "lora_b_weights", "output_tensor", "lora_indices_tensor", "add_inputs"),
    "bgmv_expand_slice": (
        "inputs",
        "lora_b_weights",
        "output_tensor",
        "lora_indices_tensor",
        "slice_offset",
        "slice_size",
        "add_inputs",
    ),
    "sgmv_shrink": ("inputs", "lora_a_weights", "output_tensor", *PREFILL, "scaling"),
    "sgmv_expand": ("inputs", "lora_b_weights", "output_tensor", *PREFILL, "add_inputs"),
    "sgmv_expand_slice": ("inputs", "lora_b_weights", "output_tensor", *PREFILL, "slice_offset", "slice_size", "add_inputs"),
}
"""The six operations and the names of their parameters, as of vLLM 0.31."""

Groups = list[tuple[int, Any]]
"""(slot, rows) for each adapter present; rows is a slice or a tensor of row numbers."""

_groups_of_step: dict[tuple[str, int, int], Groups] = {}
"""Groups by the address and length of the index tensor; emptied whenever vLLM writes new indices."""


def register() -> None:
    """Replace the six CPU operations, once a process; called by vLLM."""
    from vllm.logger import init_logger

    logger = init_logger("vllm.agentloop_cpu_lora")
    reason = _replace()
    if reason is None:
        # Not through vLLM's logger, whose level is the user's: whoever started the server looks for this line.
        print(ACTIVE, file=sys.stderr, flush=True)
    else:
        logger.info("agentloop_cpu_lora: nothing is replaced: %s", reason)
    _mend_seeds()
    _quicken_sampling()
    _fork_processes()


def _fork_processes() -> None:
    """Let the engine and its worker be forked from the server, which has imported everything, in place of being started anew.

    On a CPU vLLM starts them one after the other, and each imports torch and vLLM for ten seconds: nearly all of the time that the server
    of a small model takes to start. It does so because OpenMP reads its settings once a process, and the worker's differ from the
    server's. Intel's OpenMP reads them anew after a fork; where it is not preloaded, nothing is changed.
    """
    import torch
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or "libiomp" not in os.environ.get("LD_PRELOAD", ""):
        return
    # Initialises OpenMP in this process with its own settings. The engine puts the worker's into the environment while it forks it, and
    # would otherwise take them for itself and be bound to the worker's first core.
    torch.get_num_threads()
    platform = type(current_platform)
    configure = platform.check_and_update_config
    if getattr(configure, "agentloop_forks", False):
        return

    def check_and_update_config(cls: Any, vllm_config: Any) -> None:
        configure(vllm_config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    check_and_update_config.agentloop_forks = True  # type: ignore[attr-defined]
    platform.check_and_update_config = classmethod(check_and_update_config)


def _mend_seeds() -> None:
    """Keep a seeded request whose prompt is read in pieces from ending the server.

    vLLM takes back the number that was drawn for an unfinished prompt by the generator's offset, which CPU generators do not have ("CPU
    Generator does not use offset"). Here such a generator, which was used for nothing else yet, starts again from its seed.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    try:
        from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    except ImportError:
        return
    bookkeeping = getattr(GPUModelRunner, "_bookkeeping_sync", None)
    if not callable(bookkeeping) or getattr(bookkeeping, "agentloop_mended", False):
        return

    def mended(self: Any, *args: Any, **kwargs: Any) -> Any:
        batch = self.input_batch
        generators = batch.generators
        for index, generator in generators.items():
            if index < batch.num_reqs and self.discard_request_mask.np[index]:
                generator.manual_seed(generator.initial_seed())
        batch.generators = {}
        try:
            return bookkeeping(self, *args, **kwargs)
        finally:
            batch.generators = generators

    mended.agentloop_mended = True  # type: ignore[attr-defined]
    GPUModelRunner._bookkeeping_sync = mended


def _quicken_sampling() -> None:
    """Sample on a CPU with one random number a request, by inversion of the cumulated probabilities.

    vLLM's own way draws an exponential number for every word of the vocabulary, and with seeds a second one, row by row on one thread:
    more than a third of a step of a 135M-parameter model with 50 requests, and six times what this takes. Without seeds it compiles with a
    C++ compiler, which a user may not have. The distribution is the same.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    try:
        from vllm.v1.sample.ops import topk_topp_sampler as module
    except ImportError:
        return
    sampler = getattr(module, "TopKTopPSampler", None)
    stock = getattr(sampler, "forward_cpu", None)
    if not callable(stock) or tuple(inspect.signature(stock).parameters) != ("self", "logits", "generators", "k", "p"):
        return
    truncate = module.apply_top_k_top_p

    def forward_cpu(self: Any, logits: Any, generators: dict[int, Any], k: Any, p: Any) -> tuple[Any, Any]:
        logits = truncate(logits, k, p)
        logprobs = logits.log_softmax(dim=-1)
        returned = {"processed_logits": logits, "processed_logprobs": logprobs}.get(self.logprobs_mode)
        return draw(logprobs, generators), returned

    sampler.forward_cpu = forward_cpu  # type: ignore[union-attr]


def draw(logprobs_RV: Any, generators: dict[int, Any]) -> Any:
    """One token a row, shape (R,), by inversion: the first whose cumulated probability is above a uniform number.

    Args:
        logprobs_RV: Natural log-probabilities, R requests by V tokens, float32.
        generators: Row to the generator of a seeded request; the others share the process' own.
    """
    import torch

    uniform_R = torch.rand(len(logprobs_RV), dtype=torch.float64)
    for row, generator in generators.items():
        uniform_R[row] = torch.rand((), dtype=torch.float64, generator=generator)
    cumulated_RV = logprobs_RV.exp().cumsum(dim=-1, dtype=torch.float64)
    # Strictly above, so that a token of probability 0 is never drawn; the last sum stands for 1, so that rounding leaves no gap.
    thresholds_R1 = (uniform_R * cumulated_RV[:, -1]).unsqueeze(-1)
    drawn_R = torch.searchsorted(cumulated_RV, thresholds_R1, right=True).squeeze(-1)
    return torch.where(drawn_R < logprobs_RV.shape[-1], drawn_R, logprobs_RV.argmax(dim=-1))


def _replace() -> str | None:
    """Do it; returns why not, or None."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return "this is no CPU platform"
    try:
        from vllm.lora.punica_wrapper import punica_cpu
        from vllm.lora.punica_wrapper.punica_base import PunicaWrapperBase
    except ImportError as error:
        return f"vLLM's LoRA modules have moved ({error})"
    if getattr(punica_cpu, "agentloop_replaced", False):
        return None
    for name, expected in EXPECTED.items():
        function = getattr(punica_cpu, name, None)
        found = tuple(inspect.signature(function).parameters) if callable(function) else None
        if found != expected:
            return f"{name} takes {found}, not {expected}"
    update = getattr(PunicaWrapperBase, "update_metadata", None)
    if not callable(update):
        return "PunicaWrapperBase has no update_metadata"

    def update_metadata(self: Any, *args: Any, **kwargs: Any) -> Any:
        _groups_of_step.clear()
        return update(self, *args, **kwargs)

    PunicaWrapperBase.update_metadata = update_metadata
    for name in EXPECTED:
        setattr(punica_cpu, name, globals()[name])
    punica_cpu.agentloop_replaced = True
    return None


def group_rows(slots: list[int], lengths: list[int] | None = None) -> list[tuple[int, list[tuple[int, int]]]]:
    """Runs of rows, as (begin, end), for each slot that is present; rows of slot -1 are left out.

    Args:
        slots: Slot of each row, or of each run of rows where `lengths` is given.
        lengths: Rows in each run.
    """
    runs: dict[int, list[tuple[int, int]]] = {}
    begin = 0
    for slot, length in zip(slots, lengths or [1] * len(slots), strict=True):
        end = begin + length
        if slot >= 0 and length:
            mine = runs.setdefault(slot, [])
            if mine and mine[-1][1] == begin:
                mine[-1] = (mine[-1][0], end)
            else:
                mine.append((begin, end))
        begin = end
    return list(runs.items())


def _groups(kind: str, slots: Any, lengths: Any = None) -> Groups:
    import torch

    key = (kind, slots.data_ptr(), slots.shape[0])
    if key not in _groups_of_step:
        found: Groups = []
        for slot, runs in group_rows(slots.tolist(), None if lengths is None else lengths.tolist()):
            if len(runs) == 1:
                found.append((slot, slice(*runs[0])))
            else:
                found.append((slot, torch.cat([torch.arange(begin, end) for begin, end in runs])))
        _groups_of_step[key] = found
    return _groups_of_step[key]


def _weights(stacked: Any, slot: int, dtype: Any) -> Any:
    """Weights of one slot, shape (out, in)."""
    weights = stacked[slot]
    return (weights[0] if weights.dim() == 3 else weights).to(dtype)


def _shrink(inputs: Any, stacked: Any, output: Any, groups: Groups, scaling: float) -> None:
    for slot, rows in groups:
        weights = _weights(stacked, slot, output.dtype)
        output[rows, : weights.shape[0]] = (inputs[rows].to(output.dtype) @ weights.T) * scaling


def _expand(inputs: Any, stacked: Any, output: Any, groups: Groups, add_inputs: bool) -> None:
    for slot, rows in groups:
        weights = _weights(stacked, slot, output.dtype)
        # The adapter and the model may pad the output differently.
        common = min(weights.shape[0], output.shape[1])
        product = inputs[rows].to(output.dtype) @ weights[:common].T
        if add_inputs:
            output[rows, :common] += product
        else:
            output[rows, :common] = product


def bgmv_shrink(inputs: Any, lora_b_weights: Any, output_tensor: Any, lora_indices_tensor: Any, scaling: float = 1.0) -> None:
    """output[i] = scaling * A[slot of i] @ inputs[i]."""
    _shrink(inputs, lora_b_weights, output_tensor, _groups("token", lora_indices_tensor), scaling)


def bgmv_expand(inputs: Any, lora_b_weights: Any, output_tensor: Any, lora_indices_tensor: Any, add_inputs: bool = True) -> None:
    """output[i] += B[slot of i] @ inputs[i]."""
    _expand(inputs, lora_b_weights, output_tensor, _groups("token", lora_indices_tensor), add_inputs)


def bgmv_expand_slice(
    inputs: Any,
    lora_b_weights: Any,
    output_tensor: Any,
    lora_indices_tensor: Any,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    """The same into columns slice_offset to slice_offset + slice_size."""
    columns = output_tensor[:, slice_offset : slice_offset + slice_size]
    _expand(inputs, lora_b_weights, columns, _groups("token", lora_indices_tensor), add_inputs)


def sgmv_shrink(
    inputs: Any,
    lora_a_weights: Any,
    output_tensor: Any,
    b_seq_start_loc: Any,
    seq_len_tensor: Any,
    lora_indices_tensor: Any,
    batches: int,
    max_seq_length: int,
    token_nums: int,
    scaling: float,
) -> None:
    """As `bgmv_shrink`, with the slot given a run of tokens."""
    _shrink(inputs, lora_a_weights, output_tensor, _groups("run", lora_indices_tensor, seq_len_tensor), scaling)


def sgmv_expand(
    inputs: Any,
    lora_b_weights: Any,
    output_tensor: Any,
    b_seq_start_loc: Any,
    seq_len_tensor: Any,
    lora_indices_tensor: Any,
    batches: int,
    max_seq_length: int,
    token_nums: int,
    add_inputs: bool = False,
) -> None:
    """As `bgmv_expand`, with the slot given a run of tokens."""
    _expand(inputs, lora_b_weights, output_tensor, _groups("run", lora_indices_tensor, seq_len_tensor), add_inputs)


def sgmv_expand_slice(
    inputs: Any,
    lora_b_weights: Any,
    output_tensor: Any,
    b_seq_start_loc: Any,
    seq_len_tensor: Any,
    lora_indices_tensor: Any,
    batches: int,
    max_seq_length: int,
    token_nums: int,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = False,
) -> None:
    """As `bgmv_expand_slice`, with the slot given a run of tokens."""
    columns = output_tensor[:, slice_offset : slice_offset + slice_size]
    _expand(inputs, lora_b_weights, columns, _groups("run", lora_indices_tensor, seq_len_tensor), add_inputs)
