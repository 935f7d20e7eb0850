"""Supervised fine-tuning through TRL on ready rows: the loss is the mean over trained tokens of their negative log-likelihood, in nats.

The mean is over all trained tokens of an optimiser step, whatever the number of rows, pieces and processes that they are spread over; a
long answer weighs more than a short one. TRL prepares nothing: rows come in as ids and labels, and go to the model as they are.

A weight multiplies the loss of a row or of a token, and what is below zero is unlearnt (`imitation_loss`). The sum is divided by the number
of trained tokens, or (`aggregate: row`) by the number of rows, each the mean of its own tokens; never by the sum of weights: then a
batch of poor rows would move the policy as far as one of good ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl import SFTConfig

from agentloop.errors import Mistake
from agentloop.training.checkpoint import FOLDER, KEPT
from agentloop.training.checkpointed_trainer import CheckpointEvery
from agentloop.training.collate import RowCollator
from agentloop.training.imitation_loss import token_losses
from agentloop.training.job import Trained, TrainingJob
from agentloop.training.lora import attach_adapter
from agentloop.training.masked_head import can_share_prefix, is_plain, use_masked_head
from agentloop.training.progress import OF_PREFERENCES, Progress
from agentloop.training.quantisation import quantisation
from agentloop.training.reference import keep_reference
from agentloop.training.row_data import RowData, TrainingData, load_rows
from agentloop.training.row_trainer import Objective, RowTrainer, Scores
from agentloop.training.world import asserted_world_size, uses_cuda


@dataclass(frozen=True, slots=True)
class Imitation:
    """Weighted tokens, see `imitation_loss`."""

    compares: bool
    takes: tuple[str, ...] = ("weights",)

    def __call__(self, logprobs: torch.Tensor, reference: torch.Tensor | None, batch: Mapping[str, torch.Tensor]) -> Scores:
        """The loss of each token; shape (B, T - 1)."""
        return Scores(token_losses(logprobs, batch["weights"][:, 1:], reference))


def run(job: TrainingJob, work_dir: Path) -> Trained:
    """Train in this process (one of `job.processes`) and save the adapter.

    Raises:
        Mistake: The rows, the model or the adapter to start from do not fit the job.
        RunFailed: Nothing to train on, or a world of another size than the job's.
    """
    rows = load_rows(job)
    return fit(job, rows, *make_trainer(job, rows, work_dir))


def fit(job: TrainingJob, data: TrainingData, trainer: RowTrainer, progress: Progress) -> Trained:
    """Train, save the adapter and say what was done. Raises `RunFailed` in a world of another size than the job's."""
    world_size = asserted_world_size(job)
    began = time.monotonic()
    resumed = trainer.train_on()
    seconds = time.monotonic() - began
    trainer.save_adapter(Path(job.output), job.model_name or Path(job.model).name)
    epochs = trainer.state.epoch or 0.0
    return Trained(
        adapter_path=job.output,
        steps=trainer.state.global_step,
        rows=len(data.lengths),
        skipped=data.skipped,
        trained_tokens=round(data.trained_tokens * epochs),
        total_tokens=round(data.total_tokens * epochs),
        computed_tokens=progress.computed_tokens,
        loss_first=progress.losses[0],
        loss_last=progress.losses[-1],
        seconds=seconds,
        startup_seconds=0.0,  # the launcher's to say: most of it is over before this module is imported
        world_size=world_size,
        facts=resumed,
    )


def make_trainer(job: TrainingJob, rows: RowData, work_dir: Path) -> tuple[RowTrainer, Progress]:
    """TRL's trainer over the rows, ready to train, and the progress that it will report."""
    collator = partial(RowCollator, packing=job.packing, aggregate=rows.aggregate)
    return assemble(job, rows, work_dir, collator, Imitation(compares=rows.unlearns) if rows.weights is not None else None)


def assemble(
    job: TrainingJob, data: TrainingData, work_dir: Path, collator: Callable[..., Any], objective: Objective | None
) -> tuple[RowTrainer, Progress]:
    """The same for data of any kind; `collator(pad_id, share_prefix)` makes the collator that lays out its batches."""
    model = load_base(job)
    check_vocabulary(data, model, job)
    tokenizer = AutoTokenizer.from_pretrained(job.model, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    adapted = attach_adapter(model, job)
    if objective is not None and objective.compares:
        keep_reference(adapted, job)
    masked_head = is_plain(model)
    progress = Progress(work_dir / "progress.jsonl", OF_PREFERENCES)
    trainer = RowTrainer(
        lengths=data.lengths,
        job=job,
        objective=objective,
        model=adapted,
        args=trainer_settings(job, work_dir),
        train_dataset=Dataset.from_dict(data.columns(tokenizer.pad_token_id)),
        processing_class=tokenizer,
        data_collator=collator(tokenizer.pad_token_id, masked_head and can_share_prefix(model)),
        callbacks=[progress, CheckpointEvery(job.checkpoint_every)],
    )
    progress.count_tokens_of(model, job.processes)
    if masked_head:
        use_masked_head(model)
    return trainer, progress


def load_base(job: TrainingJob) -> PreTrainedModel:
    """The base model in the job's dtype, or in 4 bits, from its folder only."""
    dtype = getattr(torch, job.dtype if job.dtype != "auto" else ("bfloat16" if uses_cuda(job) else "float32"))
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        job.model, dtype=dtype, local_files_only=True, quantization_config=quantisation(job.quantise, dtype)
    )
    return model


def check_vocabulary(data: TrainingData, model: PreTrainedModel, job: TrainingJob) -> None:
    """Raises `Mistake` where rows hold ids that the model does not have: they were made with another tokenizer."""
    size = model.get_input_embeddings().weight.shape[0]
    highest = data.highest_id
    if highest >= size:
        raise Mistake(
            f"rows hold ids that {job.model_name or job.model} does not have; were they made with another model?",
            found=highest,
            expected=f"ids below {size}",
        )


def trainer_settings(job: TrainingJob, work_dir: Path) -> SFTConfig:
    """TRL's configuration: nothing is prepared, truncated or reported to a service."""
    return SFTConfig(
        output_dir=str(work_dir / FOLDER),
        num_train_epochs=job.epochs,
        max_steps=job.updates or -1,
        learning_rate=job.learning_rate,
        lr_scheduler_type=job.scheduler,
        warmup_steps=job.warmup,
        weight_decay=job.weight_decay,
        max_grad_norm=job.max_grad_norm,
        per_device_train_batch_size=job.rows_a_piece,
        gradient_accumulation_steps=job.gradient_accumulation,
        gradient_checkpointing=job.gradient_checkpointing,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,  # all of them are ours, and the collator's
        seed=job.seed,
        data_seed=job.seed,
        use_cpu=not uses_cuda(job),
        bf16=False,
        optim="adamw_torch",
        average_tokens_across_devices=True,
        ddp_find_unused_parameters=False if job.processes > 1 else None,
        dataloader_pin_memory=uses_cuda(job),
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        save_strategy="no",  # `CheckpointEvery` says when
        save_total_limit=KEPT,
        report_to="none",
    )
