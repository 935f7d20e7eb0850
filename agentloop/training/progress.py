"""Progress of a training: one JSON line a step in a file that can be read while it grows.

A line holds step, steps, epoch, loss (nats a trained token), learning_rate, gradient_norm, tokens (computed so far), seconds and
tokens_per_second, and what the method measures besides. A training that goes on from a checkpoint goes on with the lines up to it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from agentloop.trace.atomic import publish

ENDLESS = 10**9
"""Steps of a training of which it is not known how many it will make."""

OF_PREFERENCES = ("preferred", "margin", "divergence")
"""What trainings on preferences measure, means over the step's examples: the share on whose better side the policy is, by how much in
units of the loss, and KTO's baseline z0 in nats."""


class Progress(TrainerCallback):
    """Writes the file from the main process, and keeps the losses and the count of computed positions.

    `measured` names what else of the trainer's logs goes into each line; `courses` keeps it, a list of values by name.
    """

    def __init__(self, path: Path, measured: Sequence[str] = ()) -> None:
        self._path = path
        self.courses: dict[str, list[float]] = {name: [] for name in measured}
        self._began = time.monotonic()
        self.losses: list[float] = []
        self.computed_tokens = 0

    def count_tokens_of(self, model: torch.nn.Module, processes: int) -> None:
        """Count the positions of each forward pass; with several processes, as if all computed as many as this one."""

        def count(_module: torch.nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            ids = keywords.get("input_ids", args[0] if args else None)
            if ids is not None:
                self.computed_tokens += ids.numel() * processes

        model.register_forward_pre_hook(count, with_kwargs=True)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._began = time.monotonic()
        if state.global_step and self._path.is_file():
            self._go_on(state)

    def _go_on(self, state: TrainerState) -> None:
        """Take up the lines of the steps before the checkpoint; later ones are computed again."""
        lines = self._path.read_text().splitlines()
        records = [record for record in map(_record, lines) if record is not None and record["step"] <= state.global_step]
        self.losses = [record["loss"] for record in records]
        for name, values in self.courses.items():
            values[:] = [record[name] for record in records if name in record]
        if records:
            self.computed_tokens = records[-1]["tokens"]
            self._began -= records[-1]["seconds"]
        if state.is_world_process_zero:
            with publish(self._path) as partial:
                partial.write_text("".join(json.dumps(record) + "\n" for record in records))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if not logs or "loss" not in logs:
            return
        self.losses.append(float(logs["loss"]))
        measured = {name: float(logs[name]) for name in self.courses if logs.get(name) is not None}
        for name, value in measured.items():
            self.courses[name].append(value)
        if not state.is_world_process_zero:
            return
        seconds = time.monotonic() - self._began
        record = {
            "step": state.global_step,
            "steps": state.max_steps if state.max_steps < ENDLESS else None,
            "epoch": logs.get("epoch"),
            "loss": self.losses[-1],
            "learning_rate": logs.get("learning_rate"),
            "gradient_norm": logs.get("grad_norm"),
            "tokens": self.computed_tokens,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(self.computed_tokens / seconds, 1) if seconds else None,
        } | measured
        with self._path.open("a") as file:
            file.write(json.dumps(record) + "\n")


def _record(line: str) -> dict[str, Any] | None:
    """A line of the file; None where a kill cut it."""
    try:
        record: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return record
