"""Policy gradients while sampling goes on: as `grpo`, on rounds of rows that appear in a folder (`exchange`), until there are no more.

What is done with a round is what `grpo` does with its rows, by the same functions. What is added is that the trainer waits for rounds,
writes the adapter after each, and keeps its state at the end of each, so that a training that was killed begins at the round that it was in
(`rounds`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset

from agentloop.errors import RunFailed
from agentloop.training import grpo
from agentloop.training.checkpoint import FOLDER, last_checkpoint
from agentloop.training.exchange import Exchange
from agentloop.training.job import Trained, TrainingJob
from agentloop.training.options import read_options
from agentloop.training.policy_data import PolicyData
from agentloop.training.policy_settings import PolicySettings
from agentloop.training.policy_trainer import PolicyTrainer
from agentloop.training.progress import ENDLESS
from agentloop.training.reference import as_reference
from agentloop.training.rounds import EndOfRound, Rounds, Seen
from agentloop.training.world import asserted_world_size

T = TypeVar("T")

STATE = "rounds.json"
MARGIN = 600.0
"""Seconds that the other processes wait longer for a round than the main one does, so that it is always the one that says why."""


@dataclass(frozen=True, slots=True)
class OnlineOptions:
    """Options of method "online"; `job.rows` is the folder of the exchange.

    Attributes:
        rounds: How many.
        rates: The learning rate of each round.
        wait: Seconds that a round is waited for.
        temperature: Of all rounds.
        policy: Options of `PolicySettings` in the first round; each round brings its own. What kind of loss it is stays.
        compares: Whether any round has a divergence from the start (`kl`).
    """

    rounds: int
    rates: Sequence[float]
    wait: float
    temperature: float
    policy: dict[str, Any]
    compares: bool = False


class OnlineTrainer(PolicyTrainer):
    """A trainer of rounds in place of rows that are there from the beginning."""

    def __init__(self, *, rounds: Rounds, options: OnlineOptions, **keywords: Any) -> None:
        self._rounds = rounds
        self._options = options
        rounds.trainer = self
        super().__init__(**keywords)

    def get_train_dataloader(self) -> Rounds:
        return self._rounds

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The rate of the round that is trained on, as a factor of the highest; `begin_round` brings each round's in."""
        rates, highest = self._options.rates, self.args.learning_rate
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer if optimizer is not None else self.optimizer, lambda _: rates[self._rounds.seen.round] / highest
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def begin_round(self, settings: PolicySettings, data: PolicyData, examples: Dataset, batches: list[list[int]]) -> None:
        """Take up the settings of a round, and compute what has to be known of its rows before the policy moves on."""
        rate = self._options.rates[self._rounds.seen.round]
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.lr_scheduler._last_lr = [rate] * len(self.optimizer.param_groups)
        self._settings, self._batches = settings, batches
        self.train_dataset = examples
        self.beta = settings.kl
        self.epsilon_low, self.epsilon_high = settings.clip_low, settings.clip_high
        self.max_completion_length = grpo.longest(data, settings)
        self.start_logprobs = self.anchor_logprobs = None
        if settings.correction is not None:
            self.anchor_logprobs = self.logprobs_now()
        if settings.kl:
            with as_reference(self.accelerator.unwrap_model(self.model)):
                self.start_logprobs = self.logprobs_now()
        self.model.train()

    def told(self, value: T) -> T:
        """The main process' value, in every process."""
        values = [value]
        broadcast_object_list(values)
        return values[0]

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list[Any], Any]:
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        if not batches:  # the last rounds made no rows, so that no batch was known to be the last
            self.control.should_training_stop = True
        return batches, count

    def _save_more(self, folder: Path) -> None:
        (folder / STATE).write_text(json.dumps(asdict(self._rounds.next)))


def run(job: TrainingJob, work_dir: Path) -> Trained:
    """Train in this process (one of `job.processes`) on every round, and save the adapter.

    Raises:
        Mistake: The rows, the options, the model or the adapter to start from do not fit the job.
        WaitedTooLong: A round did not come.
        RunFailed: No round had anything to train on, or a world of another size than the job's.
    """
    options = read_options(job, OnlineOptions)
    settings = PolicySettings.of(options.policy)
    rounds = Rounds(job, Exchange(Path(job.rows[0])), count=options.rounds, wait=options.wait, seen=_seen(work_dir / FOLDER))
    trainer, progress = grpo.make_trainer(
        replace(job, learning_rate=max(options.rates), checkpoint_every=ENDLESS),
        PolicyData((), options.temperature),
        [],
        settings,
        work_dir,
        kind=lambda **keywords: OnlineTrainer(rounds=rounds, options=options, **keywords),
        changes={"max_steps": ENDLESS, "ignore_data_skip": True, "ddp_timeout": int(options.wait + MARGIN)},
        keeps_reference=options.compares,
    )
    trainer.add_callback(EndOfRound(rounds))
    world_size = asserted_world_size(job)
    began = time.monotonic()
    resumed = trainer.train_on()
    seconds = time.monotonic() - began
    if not progress.losses:
        raise RunFailed(f"no round of {options.rounds} had rows to train on; sample more tasks, or easier ones")
    trainer.save_adapter(Path(job.output), job.model_name or Path(job.model).name)
    seen = rounds.next
    courses = {name: {"first": values[0], "last": values[-1]} for name, values in progress.courses.items() if values and name != "replayed"}
    return Trained(
        adapter_path=job.output,
        steps=trainer.state.global_step,
        rows=seen.rows,
        skipped=seen.skipped,
        trained_tokens=seen.trained_tokens,
        total_tokens=seen.total_tokens,
        computed_tokens=progress.computed_tokens,
        loss_first=progress.losses[0],
        loss_last=progress.losses[-1],
        seconds=seconds,
        startup_seconds=0.0,  # the launcher's to say, as in `sft`
        world_size=world_size,
        facts=courses | {"updates": options.rounds} | resumed,
    )


def _seen(trainer: Path) -> Seen:
    """What was trained on before the checkpoint that the training goes on from."""
    checkpoint = last_checkpoint(trainer)
    return Seen() if checkpoint is None else Seen(**json.loads((checkpoint / STATE).read_text()))
