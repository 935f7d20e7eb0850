"""A trainer that keeps checkpoints: the adapter, the optimiser, the schedule of its rate, the random states of all processes, the steps.

`CheckpointedTrainer` stands before a trainer of TRL in the order of bases. TRL's own `_save_checkpoint` writes a page about the model
beside it, for which it asks the hub, and transformers' `_save` every adapter, of which it would then load all but the first.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from agentloop.training.checkpoint import last_checkpoint, mark, step_of
from agentloop.training.lora import partial_of, seal_adapter, write_adapter


class CheckpointedTrainer(Trainer):
    """Checkpoints are marked when they are whole, and hold the trained adapter alone, without the tokenizer and the reference."""

    def train_on(self) -> dict[str, Any]:
        """Train to the end, from the last whole checkpoint in the output folder, or from the beginning; what is to be told of that."""
        checkpoint = last_checkpoint(Path(self.args.output_dir))
        self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        return {} if checkpoint is None else {"resumed_at": step_of(checkpoint)}

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        Trainer._save_checkpoint(self, model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            self._save_more(folder)
            mark(folder)

    def _save_more(self, folder: Path) -> None:
        """What else belongs to a checkpoint; called by the main process."""

    def save_adapter(self, output: Path, model_name: str) -> None:
        """Write the adapter to the folder `output`: gathered from all processes, where they have parts of it, and written by one.

        To be called by all. What a killed training left of the folder is removed.
        """
        if self.accelerator.is_main_process:
            shutil.rmtree(partial_of(output), ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.save_model(str(partial_of(output)), _internal_call=True)
        if self.accelerator.is_main_process:
            seal_adapter(output, model_name)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        write_adapter(self.accelerator.unwrap_model(self.model), folder, state_dict)


class CheckpointEvery(TrainerCallback):
    """Asks for a checkpoint after every so many updates, but for the last: then there is the adapter."""

    def __init__(self, updates: int) -> None:
        self._updates = updates

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step % self._updates == 0 and state.global_step < state.max_steps:
            control.should_save = True
