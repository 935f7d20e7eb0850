"""Continuous batching on a transformers model: rows join and leave a running batch between two tokens.

One `Batch` holds the requests of one adapter. Its key-value cache is left-padded: every row ends at the last column, so that a step
feeds one column. Rows that join are prefilled together and their cache is padded to the others' length; rows that end are cut out and
columns that only padded them are dropped. A row's draws come from its own generator, so they do not depend on who else is in the batch
(up to rounding of the logits). Shapes: B rows, T columns of cache, H heads, D head size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from agentloop.engine.base import GenerationRequest
from agentloop.engine.choice import Choices

PREFILL_TOKENS = 8192
"""Most tokens, padding included, that are prefilled at once; bounds the memory of joining rows."""


@dataclass(slots=True, eq=False)
class Row:
    """One request in a batch.

    Attributes:
        request: What is asked for.
        max_tokens: Most ids to produce, within the context.
        answer: Set to the row when it has ended, or to the error that ended its batch.
        cancelled: Set by whoever no longer waits; the row then leaves at the next step.
        choices: What the completion is constrained to; None leaves it free.
        ids: What was produced so far.
        logprobs: Log-probabilities of `ids`.
        generator: Source of the row's own draws.
    """

    request: GenerationRequest
    max_tokens: int
    answer: Future[Row]
    cancelled: bool = False
    choices: Choices | None = None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    generator: torch.Generator | None = None

    @property
    def stopped(self) -> bool:
        """Whether the last id is a stop token."""
        return bool(self.ids) and self.ids[-1] in self.request.stop_token_ids

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be produced."""
        return self.cancelled or self.stopped or len(self.ids) >= self.max_tokens


class Batch:
    """The running requests of one adapter.

    Args:
        model: A causal language model (bare or PEFT), with the adapter chosen by whoever calls `step`.
        seed: Seed for requests that bring none.
    """

    def __init__(self, model: Any, seed: int = 0) -> None:
        self.model = model
        self.rows: list[Row] = []
        self.waiting: list[Row] = []
        self._cache: Any = None
        self._mask_BT = torch.zeros((0, 0), dtype=torch.long)
        self._unseeded = torch.Generator().manual_seed(seed)

    @property
    def busy(self) -> bool:
        """Whether anything is left to do."""
        return bool(self.rows or self.waiting)

    @torch.inference_mode()
    def step(self, limit: int) -> None:
        """Let waiting rows join while there are fewer than `limit`, else produce one token for every row."""
        self._leave()
        joining = self._next_to_join(limit - len(self.rows))
        if joining:
            try:
                self._join(joining)
            except Exception:
                self.waiting = joining + self.waiting  # so that `fail` answers them too
                raise
        elif self.rows:
            self._advance()

    def fail(self, error: Exception) -> None:
        """Drop everything and answer every row with `error`."""
        rows = [*self.rows, *self.waiting]
        self.rows, self.waiting, self._cache = [], [], None
        for row in rows:
            with suppress(InvalidStateError):
                row.answer.set_exception(error)

    def _next_to_join(self, room: int) -> list[Row]:
        joining: list[Row] = []
        longest = 0
        while self.waiting and len(joining) < room:
            longest = max(longest, len(self.waiting[0].request.prompt_ids))
            if joining and longest * (len(joining) + 1) > PREFILL_TOKENS:
                break
            joining.append(self.waiting.pop(0))
        return joining

    def _join(self, rows: list[Row]) -> None:
        """Prefill `rows`, sample their first token and merge those that go on into the running cache."""
        device = self.model.device
        length = max(len(row.request.prompt_ids) for row in rows)
        ids_BT = torch.zeros((len(rows), length), dtype=torch.long)
        mask_BT = torch.zeros((len(rows), length), dtype=torch.long)
        for index, row in enumerate(rows):
            prompt = row.request.prompt_ids
            ids_BT[index, length - len(prompt) :] = torch.tensor(prompt)
            mask_BT[index, length - len(prompt) :] = 1
            row.generator = self._generator(row.request.seed)
        position_BT = (mask_BT.cumsum(dim=1) - 1).clamp(min=0)
        output = self.model(
            input_ids=ids_BT.to(device),
            attention_mask=mask_BT.to(device),
            position_ids=position_BT.to(device),
            past_key_values=DynamicCache(),
            use_cache=True,
            logits_to_keep=1,
        )
        self._sample(rows, output.logits[:, -1])
        self._merge(rows, output.past_key_values, mask_BT)

    def _advance(self) -> None:
        """Feed every row's last id and sample the next."""
        device = self.model.device
        last_B1 = torch.tensor([[row.ids[-1]] for row in self.rows])
        position_B1 = self._mask_BT.sum(dim=1, keepdim=True)
        self._mask_BT = torch.cat([self._mask_BT, torch.ones((len(self.rows), 1), dtype=torch.long)], dim=1)
        output = self.model(
            input_ids=last_B1.to(device),
            attention_mask=self._mask_BT.to(device),
            position_ids=position_B1.to(device),
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache = output.past_key_values
        self._sample(self.rows, output.logits[:, -1])

    def _sample(self, rows: Sequence[Row], logits_BV: torch.Tensor) -> None:
        for row, logits_V in zip(rows, logits_BV.float().cpu(), strict=True):
            assert row.generator is not None
            if row.choices is not None:
                logits_V = row.choices.constrain(logits_V, row.ids)
            token, logprob = draw(logits_V, row.request, row.generator)
            row.ids.append(token)
            row.logprobs.append(logprob)

    def _generator(self, seed: int | None) -> torch.Generator:
        if seed is None:
            seed = int(torch.randint(0, 2**62, (1,), generator=self._unseeded))
        return torch.Generator().manual_seed(seed % 2**63)

    def _merge(self, rows: list[Row], cache: Any, mask_BT: torch.Tensor) -> None:
        if self.rows:
            columns = max(self._mask_BT.shape[1], mask_BT.shape[1])
            merged = DynamicCache()
            for index, (old, new) in enumerate(zip(self._cache.layers, cache.layers, strict=True)):
                keys_BHTD = torch.cat([_pad(old.keys, columns), _pad(new.keys, columns)])
                values_BHTD = torch.cat([_pad(old.values, columns), _pad(new.values, columns)])
                merged.update(keys_BHTD, values_BHTD, index)
            cache = merged
            mask_BT = torch.cat([_pad_mask(self._mask_BT, columns), _pad_mask(mask_BT, columns)])
        self.rows, self._cache, self._mask_BT = [*self.rows, *rows], cache, mask_BT
        self._leave()

    def _leave(self) -> None:
        """Answer rows that have ended, cut them out of the cache, and drop columns that nobody needs any more."""
        self.waiting = [row for row in self.waiting if not row.cancelled]
        ended = [row for row in self.rows if row.ended]
        if not ended:
            return
        staying = [index for index, row in enumerate(self.rows) if not row.ended]
        self.rows = [self.rows[index] for index in staying]
        if not self.rows:
            self._cache = None
        else:
            mask_BT = self._mask_BT[staying]
            padding = mask_BT.shape[1] - int(mask_BT.sum(dim=1).max())
            smaller = DynamicCache()
            for index, layer in enumerate(self._cache.layers):
                where = torch.tensor(staying, device=layer.keys.device)
                smaller.update(layer.keys[where, :, padding:], layer.values[where, :, padding:], index)
            self._cache, self._mask_BT = smaller, mask_BT[:, padding:]
        for row in ended:
            with suppress(InvalidStateError):
                row.answer.set_result(row)


def draw(logits_V: torch.Tensor, request: GenerationRequest, generator: torch.Generator) -> tuple[int, float]:
    """One id and its log-probability under the distribution that it was drawn from: temperature first, then top-k, then top-p.

    At temperature 0 the likeliest id, with its log-probability at temperature 1.
    """
    if request.temperature == 0:
        logprobs_V = logits_V.log_softmax(dim=-1)
        token = int(logprobs_V.argmax())
        return token, float(logprobs_V[token])
    logits_V = logits_V / request.temperature
    if 0 < request.top_k < len(logits_V):
        logits_V = logits_V.masked_fill(logits_V < logits_V.topk(request.top_k).values[-1], -torch.inf)
    if request.top_p < 1.0:
        sorted_V, order_V = logits_V.sort(descending=True)
        # Kept are the likeliest ids up to and including the one that reaches top_p.
        before_V = sorted_V.softmax(dim=-1).cumsum(dim=-1) - sorted_V.softmax(dim=-1)
        logits_V = logits_V.index_fill(0, order_V[before_V >= request.top_p], -torch.inf)
    logprobs_V = logits_V.log_softmax(dim=-1)
    cumulative_V = logprobs_V.double().exp().cumsum(dim=-1)
    point = torch.rand((), generator=generator, dtype=torch.float64) * cumulative_V[-1]
    token = int(torch.searchsorted(cumulative_V, point, right=True).clamp(max=len(logits_V) - 1))
    return token, float(logprobs_V[token])


def _pad(states_BHTD: torch.Tensor, columns: int) -> torch.Tensor:
    return torch.nn.functional.pad(states_BHTD, (0, 0, columns - states_BHTD.shape[2], 0))


def _pad_mask(mask_BT: torch.Tensor, columns: int) -> torch.Tensor:
    return torch.nn.functional.pad(mask_BT, (columns - mask_BT.shape[1], 0))
