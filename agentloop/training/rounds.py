"""The batches of a training that samples for itself: each round is waited for, laid out as a training of its own would be, and handed out.

The main process alone reads what was sampled and tells the others, who wait in a broadcast. Batches are planned as those of any training on
rows; each process takes an equal share, filled up with rows that train nothing. When the last batch of a round has been trained on, the
adapter is written for whoever samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from agentloop.training import grpo
from agentloop.training.exchange import Exchange, Round
from agentloop.training.job import TrainingJob
from agentloop.training.policy_data import PolicyData, load_policy_rows
from agentloop.training.policy_settings import PolicySettings

if TYPE_CHECKING:
    from agentloop.training.online import OnlineTrainer


@dataclass(slots=True)
class Seen:
    """What was trained on, over all rounds; kept with checkpoints.

    Attributes:
        round: Rounds that are over.
        rows, skipped: Rows that were trained on, and that were too long.
        trained_tokens, total_tokens: Ids that the loss saw, and all, each time that they were trained on.
    """

    round: int = 0
    rows: int = 0
    skipped: int = 0
    trained_tokens: int = 0
    total_tokens: int = 0

    def with_round(self, data: PolicyData, batches: list[list[int]]) -> Seen:
        """With one round more."""
        taken = [data.rows[index] for batch in batches for index in batch]
        return Seen(
            self.round + 1,
            self.rows + len(data.rows),
            self.skipped + data.skipped,
            self.trained_tokens + sum(row.trained for row in taken),
            self.total_tokens + sum(len(row.input_ids) for row in taken),
        )


class Rounds:
    """An iterable without a length, as the trainer takes it in place of a data loader.

    Attributes:
        seen: What was trained on in the rounds that are over.
        last: Whether the batch that was handed out last ends its round.
    """

    def __init__(self, job: TrainingJob, exchange: Exchange, *, count: int, wait: float, seen: Seen) -> None:
        self._job = job
        self._exchange = exchange
        self._count = count
        self._wait = wait
        self.seen = seen
        self.next = seen
        self.last = False
        self.trainer: OnlineTrainer | None = None

    @property
    def over(self) -> bool:
        """Whether the batch that was handed out last is the last of all."""
        return self.last and self.seen.round + 1 == self._count

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        trainer = self.trainer
        assert trainer is not None, "the trainer is made with its rounds and told to them"
        self._publish(trainer)
        while self.seen.round < self._count:
            found, data = self._receive(self.seen.round, trainer)
            batches = grpo.plan(replace(self._job, seed=self._job.seed + found.number), data) if data.rows else []
            self.next = self.seen.with_round(data, batches)
            if batches:
                yield from self._batches(trainer, found, data, batches)
            self.seen, self.last = self.next, False
            if self.seen.round < self._count:
                self._publish(trainer)

    def _batches(self, trainer: OnlineTrainer, found: Round, data: PolicyData, batches: list[list[int]]) -> Iterator[list[dict[str, Any]]]:
        """This process' share of each batch, once for each of the pieces that the trainer cuts it into."""
        embeddings = trainer.accelerator.unwrap_model(trainer.model).get_input_embeddings()
        grpo.check_vocabulary(data, embeddings.weight.shape[0], self._job)
        examples = grpo.dataset_of(data, trainer.processing_class.pad_token_id)
        trainer.begin_round(PolicySettings.of(found.options), data, examples, batches)
        filler, size = len(data.rows), self._job.batch_size // self._job.processes
        first = trainer.accelerator.process_index * size
        for at, batch in enumerate(batches):
            full = [*batch, *[filler] * (self._job.batch_size - len(batch))]
            share = [examples[index] for index in full[first : first + size]]
            for _ in range(self._job.gradient_accumulation):
                self.last = at == len(batches) - 1
                yield share

    def _receive(self, number: int, trainer: OnlineTrainer) -> tuple[Round, PolicyData]:
        """The round and its rows, the same in every process."""
        both: tuple[Round, PolicyData] | None = None
        if trainer.accelerator.is_main_process:
            found = self._exchange.await_round(number, self._wait)
            data = PolicyData((), trainer.temperature)
            if found.rows is not None:
                data = load_policy_rows(replace(self._job, rows=(found.rows,)), PolicySettings.of(found.options))
            both = found, data
        both = trainer.told(both)
        assert both is not None
        return both

    def _publish(self, trainer: OnlineTrainer) -> None:
        """Write the adapter as it is now for whoever samples, unless a run that was killed has done so."""
        path = self._exchange.adapter(self.seen.round)
        if not self.seen.round or trainer.told(path.exists()):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_adapter(path, self._job.model_name or Path(self._job.model).name)


class EndOfRound(TrainerCallback):
    """Asks for a checkpoint when a round is over, and ends the training after the last."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        control.should_training_stop = self._rounds.over
        control.should_save = self._rounds.last and not self._rounds.over
