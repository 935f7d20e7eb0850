"""TRL's policy trainer on ready rows: ids, masks, log-probabilities and advantages are ours, the loss is TRL's.

`GRPOTrainer` generates and scores what it trains on. Three of its methods are replaced, and nothing of its loss:

- `_generate_and_score_completions` hands it our rows instead of generating any. What TRL calls a completion is here the trained ids of a
  row alone, (B, N), wherever in the row they stand: the loss is over these, and mask, advantages and log-probabilities have one entry each.
- `_get_per_token_logps_and_entropies` answers with log-probabilities that were computed from whole rows, behind a shared prefix where that
  pays (`collate`), since TRL's own would need the trained ids at the end of a row, and scores every position.
- `_compute_loss` calls TRL's with these, and weighs its result. Two corrections go in as advantages: A' = A w gives the same clipped loss
  as the loss times w > 0, and A' = 0 the same as the loss times 0. The first replaces TRL's correction for rows that another engine
  sampled, which it makes for a vLLM of its own only; the second is clip-cov.

TRL's means over rows count the fillers of short batches; the result is scaled to the rows that are real.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence

from agentloop.trace.seed import derive
from agentloop.training.batch_plan import PlannedOrder
from agentloop.training.checkpointed_trainer import CheckpointedTrainer
from agentloop.training.collate import RowCollator
from agentloop.training.covariance import is_clipped, sitting_out
from agentloop.training.lean_trl import GRPOTrainer
from agentloop.training.policy_settings import PolicySettings

LOSS_TYPES = {"token": "dapo", "sequence": "grpo", "constant": "dr_grpo"}
"""What TRL calls our ways to aggregate; the clipped loss of a token is the same in all three."""

MEASURED = ("entropy", "kl", "clip_ratio/region_mean", "log_ratio", "sitting_out", "replayed")
"""What is written of each update. `log_ratio` is the mean |log ratio| a token against the behaviour, in nats: before the first update it is
what trainer and engine disagree by."""


class PolicyTrainer(CheckpointedTrainer, GRPOTrainer):
    """The trainer. Attributes are TRL's, and:

    Attributes:
        start_logprobs: By row index the log-probabilities of its trained ids when the training began; None where nothing needs them.
        anchor_logprobs: The same for what `correction` takes ratios against, where that is not the training's start.
    """

    def __init__(
        self, *, batches: Sequence[Sequence[int]], filler: int, settings: PolicySettings, collator: RowCollator, **keywords: Any
    ) -> None:
        self._batches = batches
        self._filler = filler
        self._settings = settings
        self._collator = collator
        self._scored: tuple[torch.Tensor, torch.Tensor] | None = None
        self.start_logprobs: dict[int, list[float]] | None = None
        self.anchor_logprobs: dict[int, list[float]] | None = None
        super().__init__(reward_funcs=[_rewards], **keywords)
        # Set behind TRL's back: told at once, it would keep a copy of the adapter to take the divergence from, of which `start_logprobs`
        # remembers all that is needed.
        self.beta = settings.kl
        self._dice = torch.Generator()

    def remember_start(self) -> None:
        """Compute `start_logprobs`."""
        self.start_logprobs = self.logprobs_now()

    def logprobs_now(self) -> dict[int, list[float]]:
        """By row index the log-probabilities of the trained ids of all rows in the batches, each process its share."""
        examples: Dataset = self.train_dataset
        indices = sorted({index for batch in self._batches for index in batch})
        own = indices[self.accelerator.process_index :: self.accelerator.num_processes]
        size = self.args.per_device_train_batch_size
        found: list[tuple[int, list[float]]] = []
        self.model.eval()
        with torch.no_grad():
            for start in range(0, len(own), size):
                rows = [examples[index] for index in own[start : start + size]]
                logprobs_BN, _ = self._score(self.model, rows, _mask_of(rows, self.accelerator.device))
                found += [(row["index"], logprobs_BN[at, : len(row["advantages"])].tolist()) for at, row in enumerate(rows)]
        return dict(gather_object(found))

    def _get_train_sampler(self, dataset: Dataset | None = None) -> PlannedOrder:
        pieces = self.args.gradient_accumulation_steps
        size = self.args.per_device_train_batch_size * self.accelerator.num_processes * pieces
        return PlannedOrder(self._batches, size, repeats=pieces, filler=self._filler)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """A batch of examples as TRL's loss takes it; tensors of shape (B, N) but for the counts over all processes."""
        device = self.accelerator.device
        mask_BN = _mask_of(inputs, device)
        counts = self.accelerator.reduce(torch.stack([mask_BN.sum(), (mask_BN.sum(-1) > 0).sum()]).float(), reduction="sum")
        advantages_BN = _padded([row["advantages"] for row in inputs], device)
        empty_B0 = mask_BN.new_zeros((len(inputs), 0))
        batch: dict[str, Any] = {
            "prompt_ids": empty_B0,
            "prompt_mask": empty_B0,
            "completion_ids": mask_BN,  # only its shape is asked for: the ids themselves are in the examples
            "completion_mask": mask_BN,
            "advantages": advantages_BN,
            "num_items_in_batch": counts[0],
            "real_rows": counts[1],
            "examples": inputs,
        }
        if self._settings.loss != "reinforce":
            batch["old_per_token_logps"] = _padded([row["old_logprobs"] for row in inputs], device)
        if self.start_logprobs is not None:
            known = [self.start_logprobs.get(row["index"], []) for row in inputs]
            batch["ref_per_token_logps"] = batch["anchor"] = _padded(known, device)
        if self.anchor_logprobs is not None:
            batch["anchor"] = _padded([self.anchor_logprobs.get(row["index"], []) for row in inputs], device)
        return batch

    def _get_per_token_logps_and_entropies(self, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor, None]:
        assert self._scored is not None, "the loss asks for what was computed just before"
        return (*self._scored, None)

    def _compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any]) -> torch.Tensor:
        settings = self._settings
        # By update, process and piece, so that a training that goes on from a checkpoint draws what it would have drawn.
        piece = self._step % self.args.gradient_accumulation_steps
        self._dice.manual_seed(derive(self.args.seed, self.state.global_step, self.accelerator.process_index, piece))
        mask_BN, old_BN = inputs["completion_mask"], inputs.get("old_per_token_logps")
        replayed = any(row["replayed"] for row in inputs["examples"])
        self._scored = self._score(model, inputs["examples"], mask_BN)
        logprobs_BN, advantages_BN = self._scored[0], inputs["advantages"]
        changed: dict[str, Any] = {}
        if old_BN is not None:
            self._measure("log_ratio", ((logprobs_BN.detach() - old_BN).abs() * mask_BN).sum(), mask_BN.sum())
            if settings.correction is not None:
                start_BN = inputs["anchor"]
                advantages_BN = advantages_BN * (start_BN - old_BN).exp().clamp(max=settings.correction)
                changed["old_per_token_logps"] = old_BN = start_BN
        if settings.loss == "clip_cov" and old_BN is not None:
            ratios_BN = (logprobs_BN.detach() - old_BN).exp()
            clipped_BN = is_clipped(ratios_BN, advantages_BN, self.epsilon_low, self.epsilon_high)
            of_rows = settings.replay.covariance if replayed and settings.replay else settings.covariance
            out_BN = sitting_out(logprobs_BN, advantages_BN, mask_BN, clipped_BN, of_rows, self._dice)
            advantages_BN = advantages_BN.masked_fill(out_BN, 0.0)
            self._measure("sitting_out", out_BN.sum(), mask_BN.sum())
        loss: torch.Tensor = super()._compute_loss(model, {**inputs, **changed, "advantages": advantages_BN})
        self._scored = None
        if settings.aggregate != "token":
            pieces = self.accelerator.num_processes * self.args.steps_per_generation
            loss = loss * (len(inputs["examples"]) * pieces / inputs["real_rows"].clamp(min=1))
        if replayed and settings.replay is not None:
            loss = loss * settings.replay.weight
        self._metrics["train"]["replayed"].append(float(replayed))
        return loss

    def _score(
        self, model: torch.nn.Module, examples: Sequence[dict[str, Any]], mask_BN: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each trained id, in nats and at the rows' temperature, and the entropy where it was drawn; each (B, N)."""
        laid = {name: values.to(mask_BN.device) for name, values in self._collator(examples).items()}  # type: ignore[arg-type]  # examples have ids and labels
        with self.accelerator.autocast():
            outputs = model(**laid, fused_lm_head=True, use_cache=False)
        # In every layout the trained ids come in the order of the rows.
        trained = laid["labels"][:, 1:] != -100
        real_BN = mask_BN > 0
        fields = (values[trained] for values in (outputs.log_probs, outputs.entropy))
        logprobs_BN, entropies_BN = (values.new_zeros(mask_BN.shape).masked_scatter(real_BN, values) for values in fields)
        return logprobs_BN, entropies_BN

    def _measure(self, name: str, total: torch.Tensor, count: torch.Tensor) -> None:
        """Log a mean over all processes."""
        both = self.accelerator.reduce(torch.stack([total.float(), count.float()]), reduction="sum")
        self._metrics["train"][name].append((both[0] / both[1].clamp(min=1)).item())


def _rewards(**_: Any) -> list[float]:
    """TRL wants somebody who rewards; nothing asks."""
    raise AssertionError("rows have their advantages already")


def _mask_of(examples: Sequence[dict[str, Any]], device: torch.device) -> torch.Tensor:
    """1 for each trained id, shape (B, N), N the most of any row and at least 2."""
    return _padded([[1] * len(row["advantages"]) for row in examples], device, dtype=torch.long)


def _padded(values: Sequence[Sequence[float]], device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Rows filled up with 0 on the right, at least two columns wide: TRL takes a single column for one value a sequence, without a mask,
    and would count the fillers of a process that has nothing else.
    """
    rows = [torch.tensor([*row], dtype=dtype) for row in values]
    padded = pad_sequence([*rows, torch.zeros(2, dtype=dtype)], batch_first=True)[:-1]
    return padded.to(device)
