"""Log-probabilities at trained positions only, and rows behind a shared prefix.

On a CPU, TRL's fused output head scores every position, and most of a row is context. `use_masked_head` gives the base model the same
entry that TRL's
`add_fused_lm_head` gives it (`model(..., labels=..., fused_lm_head=True)`) and the same answer, so TRL's loss stays as it is; the
vocabulary is multiplied out where a label is, and nowhere else. The entry takes `owners` too, the layout of `collate.behind_prefix`.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from agentloop.training.collate import visible

POSITIONS_A_CHUNK = 1024
"""Positions whose logits are held at once; beyond the first chunk they are computed again in the backward pass."""

_RESCALES = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling", "output_router_logits")


def is_plain(model: PreTrainedModel) -> bool:
    """Whether the model's logits are its head's output as it is (Llama, Qwen, SmolLM, Mistral ...); others keep TRL's head."""
    config = model.config.get_text_config()
    return config is model.config and not any(getattr(config, name, None) for name in _RESCALES)


def can_share_prefix(model: PreTrainedModel) -> bool:
    """Whether every layer attends to all that a mask of our own shows it: full attention by PyTorch's kernel, no sliding window."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    return is_plain(model) and config._attn_implementation == "sdpa" and kinds == {"full_attention"} and not windowed


def use_masked_head(model: PreTrainedModel, temperature: float = 1.0) -> None:
    """Add `owners` to the model's forward, and on a CPU replace its `fused_lm_head=True` path; TRL's forward is behind both.

    `temperature` divides the logits; TRL's own head must have been given the same.
    """
    inner = model.forward

    def forward(
        self: Any,
        *args: Any,
        fused_lm_head: bool = False,
        labels: torch.Tensor | None = None,
        owners: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if owners is not None:
            kwargs["attention_mask"] = visible(owners)
        if not fused_lm_head or labels is None or labels.device.type == "cuda":
            return inner(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        kwargs.pop("num_items_in_batch", None)
        hidden_BTD = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        return _scored(hidden_BTD, labels[:, 1:], self.get_output_embeddings(), temperature)

    model.forward = types.MethodType(forward, model)


def _scored(hidden_BTD: torch.Tensor, labels_BT: torch.Tensor, head: torch.nn.Module, temperature: float) -> FusedCausalLMOutput:
    """What TRL's head returns: shape (B, T - 1) per-token fields, zero where nothing is trained."""
    mask_BT = labels_BT != -100
    chosen_ND, targets_N = hidden_BTD[mask_BT], labels_BT[mask_BT]
    parts = []
    for start in range(0, max(len(targets_N), 1), POSITIONS_A_CHUNK):
        piece = (head, chosen_ND[start : start + POSITIONS_A_CHUNK], targets_N[start : start + POSITIONS_A_CHUNK], temperature)
        parts.append(_log_probs(*piece) if len(targets_N) <= POSITIONS_A_CHUNK else checkpoint(_log_probs, *piece, use_reentrant=False))
    fields = [torch.cat(field) for field in zip(*parts, strict=True)]
    # masked_scatter keeps the graph connected where no position is trained (a process' share may be all filler)
    logprobs, entropy, top1 = (field.new_zeros(mask_BT.shape).masked_scatter(mask_BT, field) for field in fields)
    return FusedCausalLMOutput(
        loss=-logprobs.sum() / mask_BT.sum().clamp(min=1), log_probs=logprobs, entropy=entropy, is_top1=top1, label_mask=mask_BT
    )


def _log_probs(
    head: torch.nn.Module, hidden_ND: torch.Tensor, targets_N: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probability of each target, entropy, and whether the target is the likeliest; each of shape (N,)."""
    logits_NV = head(hidden_ND).float() / temperature
    logprobs_N = -functional.cross_entropy(logits_NV, targets_N, reduction="none")
    with torch.no_grad():
        normaliser_N = torch.logsumexp(logits_NV, dim=-1)
        entropy_N = normaliser_N - (torch.exp(logits_NV - normaliser_N[:, None]) * logits_NV).sum(dim=-1)
        top1_N = logits_NV.argmax(dim=-1) == targets_N
    return logprobs_N, entropy_N, top1_N
