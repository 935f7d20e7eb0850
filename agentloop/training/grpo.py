"""Policy gradients through TRL on ready rows with advantages and behaviour log-probabilities: GRPO (arXiv:2402.03300) and its kin.

With r the ratio of a token's probability to that under `old` and A its advantage, the loss of a token is

    -min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) + kl r (exp(d) - d - 1),    d = log start - log now

The factor r in the second term makes its gradient that of the divergence itself (arXiv:2512.02556). Under `reinforce` r is 1 with the
gradient of log p, so that the first term has the value -A and the gradient of -A log p. The batch's loss is the mean over all its trained
tokens, or over rows, whatever the pieces and processes that they are spread over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from datasets import Dataset
from transformers import AutoTokenizer

from agentloop.errors import Mistake
from agentloop.training.batch_plan import planned_batches
from agentloop.training.checkpoint import FOLDER, KEPT
from agentloop.training.checkpointed_trainer import CheckpointEvery
from agentloop.training.collate import RowCollator
from agentloop.training.job import Trained, TrainingJob
from agentloop.training.lean_trl import GRPOConfig
from agentloop.training.lora import attach_adapter
from agentloop.training.masked_head import can_share_prefix, is_plain, use_masked_head
from agentloop.training.policy_data import PolicyData, PolicyRow, load_policy_rows
from agentloop.training.policy_settings import PolicySettings
from agentloop.training.policy_trainer import LOSS_TYPES, MEASURED, PolicyTrainer
from agentloop.training.progress import Progress
from agentloop.training.reference import keep_reference
from agentloop.training.row_data import IGNORED
from agentloop.training.sft import load_base
from agentloop.training.world import asserted_world_size, uses_cuda

T = TypeVar("T", bound=PolicyTrainer)


def run(job: TrainingJob, work_dir: Path) -> Trained:
    """Train in this process (one of `job.processes`) and save the adapter.

    Raises:
        Mistake: The rows, the options, the model or the adapter to start from do not fit the job.
        RunFailed: Nothing to train on, or a world of another size than the job's.
    """
    settings = PolicySettings.of(job.options)
    data = load_policy_rows(job, settings)
    batches = plan(job, data)
    trainer: PolicyTrainer
    trainer, progress = make_trainer(job, data, batches, settings, work_dir)
    world_size = asserted_world_size(job)
    began = time.monotonic()
    if settings.kl or settings.correction is not None:
        trainer.remember_start()
    resumed = trainer.train_on()
    seconds = time.monotonic() - began
    trainer.save_adapter(Path(job.output), job.model_name or Path(job.model).name)
    seen = [data.rows[index] for batch in batches for index in batch]
    return Trained(
        adapter_path=job.output,
        steps=trainer.state.global_step,
        rows=len(data.rows),
        skipped=data.skipped,
        trained_tokens=sum(row.trained for row in seen),
        total_tokens=sum(len(row.input_ids) for row in seen),
        computed_tokens=progress.computed_tokens,
        loss_first=progress.losses[0],
        loss_last=progress.losses[-1],
        seconds=seconds,
        startup_seconds=0.0,  # the launcher's to say, as in `sft`
        world_size=world_size,
        facts=_facts(data, batches, progress) | resumed,
    )


def plan(job: TrainingJob, data: PolicyData) -> list[list[int]]:
    """Batches of the new rows, for the job's epochs or updates, then one pass over those that are replayed."""
    groups = [row.group for row in data.rows]
    new = len(groups) - data.replayed
    batches = planned_batches(groups[:new], job.batch_size, epochs=job.epochs, updates=job.updates, seed=job.seed)
    again = planned_batches(groups[new:], job.batch_size, epochs=1, updates=None, seed=job.seed)
    return batches + [[new + index for index in batch] for batch in again]


def make_trainer(
    job: TrainingJob,
    data: PolicyData,
    batches: list[list[int]],
    settings: PolicySettings,
    work_dir: Path,
    *,
    kind: Callable[..., T] = PolicyTrainer,
    changes: Mapping[str, Any] = MappingProxyType({}),
    keeps_reference: bool = False,
) -> tuple[T, Progress]:
    """TRL's trainer over the batches, ready to train, and the progress that it will report.

    Args:
        job, data, batches, settings, work_dir: What is trained on, and where.
        kind: The trainer's class.
        changes: Keys of TRL's configuration that are otherwise than `trainer_settings` says.
        keeps_reference: Whether a frozen copy of the adapter that the training goes on from is kept.
    """
    if job.batch_size < 2:
        raise Mistake("policy gradients need a batch of two rows or more", found=f"batch_size {job.batch_size}")
    if job.packing:
        raise Mistake("packing is not available for policy gradients", expected="packing: false; shared prefixes are used by themselves")
    model = load_base(job)
    check_vocabulary(data, model.get_input_embeddings().weight.shape[0], job)
    tokenizer = AutoTokenizer.from_pretrained(job.model, local_files_only=True)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    adapted = attach_adapter(model, job)
    if keeps_reference:
        keep_reference(adapted, job)
    masked_head = is_plain(model)
    progress = Progress(work_dir / "progress.jsonl", MEASURED)
    trainer = kind(
        batches=batches,
        filler=len(data.rows),
        settings=settings,
        collator=RowCollator(tokenizer.pad_token_id, share_prefix=masked_head and can_share_prefix(model)),
        model=adapted,
        args=trainer_settings(job, data, settings, work_dir, changes),
        train_dataset=dataset_of(data, tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[progress, CheckpointEvery(job.checkpoint_every)],
    )
    progress.count_tokens_of(model, job.processes)
    if masked_head:
        use_masked_head(model, data.temperature)
    return trainer, progress


def trainer_settings(
    job: TrainingJob, data: PolicyData, settings: PolicySettings, work_dir: Path, changes: Mapping[str, Any] = MappingProxyType({})
) -> GRPOConfig:
    """TRL's configuration: nothing is generated or reported to a service; the batches are one pass."""
    values = {
        "output_dir": str(work_dir / FOLDER),
        "num_train_epochs": 1,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": job.scheduler,
        "warmup_steps": job.warmup,
        "weight_decay": job.weight_decay,
        "max_grad_norm": job.max_grad_norm,
        "per_device_train_batch_size": job.rows_a_piece,
        "gradient_accumulation_steps": job.gradient_accumulation,
        "gradient_checkpointing": job.gradient_checkpointing,
        "num_generations": job.batch_size,  # TRL only asks that it divide the batch: groups were compared before
        "loss_type": LOSS_TYPES[settings.aggregate],
        "epsilon": settings.clip_low,
        "epsilon_high": settings.clip_high,
        "temperature": data.temperature,
        "max_completion_length": longest(data, settings),
        "beta": 0.0,
        "seed": job.seed,
        "data_seed": job.seed,
        "use_cpu": not uses_cuda(job),
        "bf16": False,
        "optim": "adamw_torch",
        "ddp_find_unused_parameters": False if job.processes > 1 else None,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "save_strategy": "no",  # `CheckpointEvery` says when
        "save_total_limit": KEPT,
        "report_to": "none",
    }
    return GRPOConfig(**values | dict(changes))


def longest(data: PolicyData, settings: PolicySettings) -> int:
    """What `aggregate: constant` divides by: the constant length, or the most trained ids of any row."""
    return settings.length or max((row.trained for row in data.rows), default=1)


def check_vocabulary(data: PolicyData, size: int, job: TrainingJob) -> None:
    """Raises `Mistake` where rows hold ids that the model does not have."""
    highest = max((max(row.input_ids) for row in data.rows), default=0)
    if highest >= size:
        raise Mistake(
            f"rows hold ids that {job.model_name or job.model} does not have; were they made with another model?",
            found=highest,
            expected=f"ids below {size}",
        )


def dataset_of(data: PolicyData, pad_id: int) -> Dataset:
    """All rows and, after them, the filler: two ids of which none is trained on, which fill up batches and change nothing."""
    filler = PolicyRow((pad_id, pad_id), (IGNORED, IGNORED), (), ())
    rows = [*data.rows, filler]
    columns: dict[str, list[Any]] = {
        "index": list(range(len(rows))),
        "input_ids": [list(row.input_ids) for row in rows],
        "labels": [list(row.labels) for row in rows],
        "old_logprobs": [list(row.old_logprobs or ()) for row in rows],
        "advantages": [list(row.advantages) for row in rows],
        "replayed": [row.replayed for row in rows],
    }
    return Dataset.from_dict(columns)


def _facts(data: PolicyData, batches: list[list[int]], progress: Progress) -> dict[str, Any]:
    """What this method tells beside what every training does: each measured course by its first and last value, and the rows' counts."""
    again = sum(data.rows[batch[0]].replayed for batch in batches)
    facts: dict[str, Any] = {
        name: {"first": values[0], "last": values[-1]} for name, values in progress.courses.items() if values and name != "replayed"
    }
    facts |= {"updates": len(batches) - again, "replayed": data.replayed, "replay_updates": again, "left_out": dict(data.left_out)}
    if data.baseline is not None:
        facts["baseline"] = data.baseline
    return facts
