"""What a training is asked to do and what it answers: two frozen records that go through JSON to the training process and back.

Importing this module imports no torch, so that a recipe can be checked against it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentloop.errors import Mistake, nearest
from agentloop.training.distribution import Distribution


@dataclass(frozen=True, slots=True)
class TrainingJob:
    """One adapter to train. Paths are absolute or relative to the working directory of the process that calls `train`.

    Attributes:
        model: Folder of the base model.
        rows: Artifacts of rows (files or folders); all rows of all of them are used, in the order of their ids, so that layout
            means nothing.
        output: Folder in which the adapter appears, by a rename, once it is complete. Must not exist.
        method: Name in `agentloop.training.registry`.
        model_name: What `adapter_config.json` calls the base model; the folder's name where empty. Never a path, so that equal
            adapters are equal bytes.
        start: Folder of the adapter to go on from; None starts a fresh one.
        role: Only rows of this role; None takes all.
        rank, alpha, dropout, target_modules: LoRA (arXiv:2106.09685) on all linear layers but the output head, or on layers named so.
        epochs: Passes over the rows; the last one may be a part.
        updates: Optimiser steps, in place of `epochs`; None means `epochs`.
        learning_rate: Peak rate of AdamW.
        batch_size: Rows an optimiser step, over all processes.
        gradient_accumulation: Pieces that each process cuts its share of a batch into, to save memory; does not change the result.
        max_length: Longest row, in ids; None is no limit.
        too_long: What to do with rows above `max_length`: "refuse" stops with a count, "skip" leaves them out and reports the
            count. No row is ever cut.
        max_rows: Most rows, drawn by the seed; None takes all.
        packing: Lay the rows of a batch end to end in one sequence instead of padding them; same result, and pays only with
            variable-length attention kernels.
        warmup: Share of the steps in which the rate rises from 0.
        scheduler: How it then falls.
        weight_decay, max_grad_norm: AdamW's decay, and the norm to which gradients are clipped.
        seed: Of the fresh adapter, the order of rows and dropout.
        processes: Data-parallel processes on this machine.
        distribution: What is divided among them: rows alone ("ddp"), or the model too; see `distribution`.
        device: "auto" takes CUDA where present.
        dtype: Of the base weights; "auto" is bfloat16 on CUDA, float32 on a CPU. The adapter is always float32.
        quantise: "nf4" keeps the base weights in 4 bits while it trains (QLoRA, arXiv:2305.14314); needs bitsandbytes.
        gradient_checkpointing: Trade a third more computation for memory that does not grow with depth.
        threads: Threads a process on a CPU; None divides the machine's cores.
        timeout: Seconds after which the training counts as hung and is killed.
        checkpoint_every: Updates after which the state of the training is kept, so that the same job, killed and launched again in the
            same work folder, goes on from there.
        content: Hash of what is trained on, where the caller knows it: with another one, a checkpoint is not gone on from.
        options: What only this method knows.
    """

    model: str
    rows: tuple[str, ...]
    output: str
    method: str = "sft"
    model_name: str = ""
    start: str | None = None
    role: str | None = None
    rank: int = 16
    alpha: float = 32
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"
    epochs: float = 1
    updates: int | None = None
    learning_rate: float = 2e-4
    batch_size: int = 8
    gradient_accumulation: int = 1
    max_length: int | None = None
    too_long: Literal["refuse", "skip"] = "refuse"
    max_rows: int | None = None
    packing: bool = False
    warmup: float = 0.03
    scheduler: Literal["constant", "linear", "cosine"] = "linear"
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    seed: int = 0
    processes: int = 1
    distribution: Distribution = "ddp"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    quantise: Literal["none", "nf4"] = "none"
    gradient_checkpointing: bool = False
    threads: int | None = None
    timeout: float = 6 * 3600.0
    checkpoint_every: int = 50
    content: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("rank", "updates", "batch_size", "gradient_accumulation", "max_length", "processes", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise Mistake(f"{name} of a training must be at least 1", found=value)
        for name in ("alpha", "epochs"):
            if getattr(self, name) <= 0:
                raise Mistake(f"{name} of a training must be more than 0", found=getattr(self, name))
        if self.learning_rate <= 0:
            raise Mistake("learning_rate of a training must be more than 0", found=self.learning_rate)
        for name in ("dropout", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise Mistake(f"{name} of a training must be a share below 1", found=getattr(self, name))
        pieces = self.processes * self.gradient_accumulation
        if self.batch_size % pieces:
            raise Mistake(
                f"a batch cannot be cut into {self.processes} processes x {self.gradient_accumulation} pieces",
                found=f"batch_size {self.batch_size}",
                expected=f"a multiple of {pieces}",
            )
        if not self.rows:
            raise Mistake("a training needs rows", found=self.rows, expected="at least one artifact of rows")

    @property
    def rows_a_piece(self) -> int:
        """Rows that one process computes at once."""
        return self.batch_size // (self.processes * self.gradient_accumulation)

    def to_json(self) -> str:
        """One JSON object; `from_json` gives an equal job back."""
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> TrainingJob:
        """The job of `to_json`. Raises `Mistake` for keys that a job does not have."""
        values = json.loads(text)
        known = [entry.name for entry in dataclasses.fields(TrainingJob)]
        for key in values:
            if key not in known:
                raise Mistake(f"unknown key {key!r} in a training job", nearest=nearest(key, known))
        values["rows"] = tuple(values["rows"])
        if isinstance(values.get("target_modules"), list):
            values["target_modules"] = tuple(values["target_modules"])
        return TrainingJob(**values)


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training did.

    Attributes:
        adapter_path: Folder with `adapter_config.json` and `adapter_model.safetensors`.
        steps: Optimiser steps.
        rows: Rows that were trained on, each `epochs` times.
        skipped: Rows left out because they were longer than `max_length`.
        trained_tokens: Masked ids times epochs: what the loss saw; rounded where the last epoch was a part.
        total_tokens: All ids times epochs, padding not counted; rounded likewise.
        computed_tokens: Positions that went through the model, padding included.
        loss_first: Mean loss a trained token of the first step, in nats.
        loss_last: That of the last step.
        seconds: Wall-clock seconds of the training itself; `startup_seconds` all others (imports, model, rows, saving).
        world_size: Processes that trained together, as they counted themselves.
        facts: What only this method has to tell: JSON values by name.
    """

    adapter_path: str
    steps: int
    rows: int
    skipped: int
    trained_tokens: int
    total_tokens: int
    computed_tokens: int
    loss_first: float
    loss_last: float
    seconds: float
    startup_seconds: float
    world_size: int
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """One JSON object; `from_json` gives an equal record back."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Trained:
        """The record of `to_json`."""
        return Trained(**json.loads(text))
