"""Supervised fine-tuning through TRL on ready rows: the loss is the mean over trained tokens of their negative log-likelihood, in nats.

The mean is over all trained tokens of an optimiser step, whatever the number of rows, pieces and processes that they are spread over; a
long answer weighs more than a short one. TRL prepares nothing: rows come in as ids and labels, and go to the model as they are.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl import SFTConfig, SFTTrainer

from agentloop.errors import Mistake
from agentloop.training.batches import BatchOrder
from agentloop.training.collate import RowCollator
from agentloop.training.job import Trained, TrainingJob
from agentloop.training.lora import attach_adapter, save_adapter
from agentloop.training.masked_head import can_share_prefix, is_plain, use_masked_head
from agentloop.training.progress import Progress
from agentloop.training.row_data import IGNORED, RowData, load_rows
from agentloop.training.world import asserted_world_size, uses_cuda


class RowTrainer(SFTTrainer):
    """TRL's trainer with our order of rows. `lengths` are those of the real rows; the dataset holds one filler row after them."""

    def __init__(self, *, lengths: list[int], job: TrainingJob, **keywords: Any) -> None:
        self._lengths = lengths
        self._job = job
        super().__init__(**keywords)

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> BatchOrder:
        job = self._job
        pieces = job.processes * job.gradient_accumulation
        return BatchOrder(self._lengths, job.batch_size, pieces=pieces, filler=len(self._lengths), seed=job.seed)


def run(job: TrainingJob, work_dir: Path) -> Trained:
    """Train in this process (one of `job.processes`) and save the adapter.

    Raises:
        Mistake: The rows, the model or the adapter to start from do not fit the job.
        RunFailed: Nothing to train on, or a world of another size than the job's.
    """
    rows = load_rows(job)
    trainer, progress = make_trainer(job, rows, work_dir)
    world_size = asserted_world_size(job)
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    if trainer.accelerator.is_main_process:
        save_adapter(trainer.accelerator.unwrap_model(trainer.model), Path(job.output), job.model_name or Path(job.model).name)
    trainer.accelerator.wait_for_everyone()
    epochs = trainer.state.epoch or 0.0
    return Trained(
        adapter_path=job.output,
        steps=trainer.state.global_step,
        rows=len(rows.input_ids),
        skipped=rows.skipped,
        trained_tokens=round(rows.trained_tokens * epochs),
        total_tokens=round(rows.total_tokens * epochs),
        computed_tokens=progress.computed_tokens,
        loss_first=progress.losses[0],
        loss_last=progress.losses[-1],
        seconds=seconds,
        startup_seconds=0.0,  # the launcher's to say: most of it is over before this module is imported
        world_size=world_size,
    )


def make_trainer(job: TrainingJob, rows: RowData, work_dir: Path) -> tuple[RowTrainer, Progress]:
    """TRL's trainer over the rows, ready to train, and the progress that it will report."""
    model = load_base(job)
    check_vocabulary(rows, model, job)
    tokenizer = AutoTokenizer.from_pretrained(job.model, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    adapted = attach_adapter(model, job)
    masked_head = is_plain(model)
    progress = Progress(work_dir / "progress.jsonl")
    trainer = RowTrainer(
        lengths=[len(ids) for ids in rows.input_ids],
        job=job,
        model=adapted,
        args=trainer_settings(job, work_dir),
        train_dataset=_dataset(rows, tokenizer.pad_token_id),
        processing_class=tokenizer,
        data_collator=None if job.packing else RowCollator(tokenizer.pad_token_id, share_prefix=masked_head and can_share_prefix(model)),
        callbacks=[progress],
    )
    progress.count_tokens_of(model, job.processes)
    if masked_head:
        use_masked_head(model)
    return trainer, progress


def load_base(job: TrainingJob) -> PreTrainedModel:
    """The base model in the job's dtype, from its folder only."""
    dtype = job.dtype if job.dtype != "auto" else ("bfloat16" if uses_cuda(job) else "float32")
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(job.model, dtype=getattr(torch, dtype), local_files_only=True)
    return model


def check_vocabulary(rows: RowData, model: PreTrainedModel, job: TrainingJob) -> None:
    """Raises `Mistake` where rows hold ids that the model does not have: they were made with another tokenizer."""
    size = model.get_input_embeddings().weight.shape[0]
    highest = max(max(ids) for ids in rows.input_ids)
    if highest >= size:
        raise Mistake(
            f"rows hold ids that {job.model_name or job.model} does not have; were they made with another model?",
            found=highest,
            expected=f"ids below {size}",
        )


def trainer_settings(job: TrainingJob, work_dir: Path) -> SFTConfig:
    """TRL's configuration: nothing is prepared, truncated, reported to a service or saved on the way."""
    return SFTConfig(
        output_dir=str(work_dir / "trainer"),
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
        padding_free=job.packing,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
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
        save_strategy="no",
        report_to="none",
    )


def _dataset(rows: RowData, pad_id: int) -> Dataset:
    """All rows and, after them, the filler: two ids without a label, which fill up batches and change nothing."""
    ids = [list(row) for row in rows.input_ids] + [[pad_id, pad_id]]
    labels = [list(row) for row in rows.labels] + [[IGNORED, IGNORED]]
    return Dataset.from_dict({"input_ids": ids, "labels": labels})
