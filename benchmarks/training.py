"""Seconds of a training step through agentloop against TRL alone on the same rows, and what shared prefixes and packing save on real trees.

    python -m benchmarks.training --trees RUN/iterations/000/trees/trees.parquet --out benchmarks/results/training.json

*Steps.* Both sides train the same adapter on the same batches in the same order, in one process, in turns (A B, B A, ...), after a step
that is not counted. "TRL alone" is its `SFTTrainer` on ids and labels with its own collator, and its `GRPOTrainer` with its own log-
probabilities and loss, given the tensors that it would have sampled. agentloop is measured twice: as it is, and `plain`, its prefix
sharing and its head for trained positions switched off, so that what is left is what it adds around TRL. What is reported is the median
of the ratios of neighbouring passes, since a machine's speed drifts.

*Layouts.* Every episode of the trees as a row, groups together, in batches: positions that go through the model when rows are padded, laid
end to end (packing), behind a shared prefix, and as a prefix tree in which nothing is computed twice (a bound that nothing here reaches);
and for some of the smallest batches the seconds of a forward and backward pass of each.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTTrainer

from agentloop.dataset import advantage
from agentloop.dataset.row import Row
from agentloop.dataset.store import write_rows
from agentloop.model import resolve
from agentloop.trace.store import read_trees
from agentloop.training import grpo, sft
from agentloop.training.batch_plan import grouped_batches
from agentloop.training.collate import Example, RowCollator, pack, pad
from agentloop.training.job import TrainingJob
from agentloop.training.lean_trl import GRPOTrainer
from agentloop.training.lora import attach_adapter
from agentloop.training.masked_head import use_masked_head
from agentloop.training.policy_data import load_policy_rows
from agentloop.training.policy_settings import PolicySettings
from agentloop.training.row_data import IGNORED, labels_of, load_rows
from benchmarks.generation import about_machine

SIDES = ("agentloop", "plain", "trl")
SIZES = (8, 16, 32)
"""Rows a batch of which layouts are counted."""


class Watch(TrainerCallback):
    """Seconds of each optimiser step but the first."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step > 1:
            self.seconds.append(time.monotonic() - self._began)


def rows_of(trees: Sequence[Path], most: int | None, longest: int) -> list[Row]:
    """Every episode of the trees as a row with advantages, whole groups up to `most` rows."""
    settings = advantage.Settings(drop_equal=False, draws="any")
    rows = [row for path in trees for row in advantage.build(read_trees(path), settings) if len(row.input_ids) <= longest]
    if most is None or len(rows) <= most:
        return rows
    groups = sorted({row.provenance.tree for row in rows})
    random.Random(0).shuffle(groups)
    chosen: list[Row] = []
    for group in groups:
        if len(chosen) < most:
            chosen += [row for row in rows if row.provenance.tree == group]
    return chosen[:most]


@contextmanager
def plain() -> Iterator[None]:
    """agentloop without what makes it faster than TRL: rows padded, every position through TRL's own head."""
    with ExitStack() as stack:
        for module in (sft, grpo):
            stack.enter_context(mock.patch.object(module, "is_plain", lambda _: False))
        yield


def sft_trainer(side: str, job: TrainingJob, work: Path) -> Any:
    """A trainer of this side over the job's rows."""
    data = load_rows(job)
    ours, _ = sft.make_trainer(job, data, work)
    if side != "trl":
        return ours
    order = list(ours._get_train_sampler())
    ours_args = sft.trainer_settings(job, work)

    class Ordered(SFTTrainer):
        """TRL's, with the batches that agentloop makes."""

        def _get_train_sampler(self, *_: Any) -> list[int]:
            return order

    tokenizer = AutoTokenizer.from_pretrained(job.model, local_files_only=True)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows = Dataset.from_dict(data.columns(tokenizer.pad_token_id))
    return Ordered(model=attach_adapter(sft.load_base(job), job), args=ours_args, train_dataset=rows, processing_class=tokenizer)


def grpo_trainer(side: str, job: TrainingJob, work: Path) -> Any:
    """A policy trainer of this side over the job's rows."""
    settings = PolicySettings.of(job.options)
    data = load_policy_rows(job, settings)
    batches = grpo.plan(job, data)
    ours, _ = grpo.make_trainer(job, data, batches, settings, work)
    if side != "trl":
        return ours
    order = list(ours._get_train_sampler())
    pad_id = ours.processing_class.pad_token_id

    class Given(GRPOTrainer):
        """TRL's, with the batches that agentloop makes, given as what TRL would have sampled: prompts and completions."""

        def _get_train_sampler(self, *_: Any) -> list[int]:
            return order

        def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
            return as_sampled(inputs, pad_id)

    return Given(
        reward_funcs=[lambda **_: []],
        model=attach_adapter(sft.load_base(job), job),
        args=grpo.trainer_settings(job, data, settings, work),
        train_dataset=grpo.dataset_of(data, pad_id),
        processing_class=ours.processing_class,
    )


def as_sampled(rows: Sequence[dict[str, Any]], pad_id: int) -> dict[str, Any]:
    """Rows as TRL lays them: what precedes the first trained id on the left, the rest on the right, the environment's words masked."""
    starts = [next((at for at, label in enumerate(row["labels"]) if label != IGNORED), len(row["labels"]) - 1) for row in rows]
    prompts = [row["input_ids"][:start] for row, start in zip(rows, starts, strict=True)]
    answers = [row["input_ids"][start:] for row, start in zip(rows, starts, strict=True)]
    trained = [[int(label != IGNORED) for label in row["labels"][start:]] for row, start in zip(rows, starts, strict=True)]
    left, right = max(map(len, prompts)), max(map(len, answers))

    def spread(values: Sequence[float], mask: Sequence[int]) -> list[float]:
        following = iter(values)
        return [next(following) if m else 0.0 for m in mask]

    def filled(lines: Sequence[Sequence[float]], width: int, filler: float, *, before: bool = False) -> torch.Tensor:
        gaps = [[filler] * (width - len(line)) for line in lines]
        return torch.tensor([[*gap, *line] if before else [*line, *gap] for line, gap in zip(lines, gaps, strict=True)])

    mask = filled(trained, right, 0)
    return {
        "prompt_ids": filled(prompts, left, pad_id, before=True).long(),
        "prompt_mask": filled([[1] * len(prompt) for prompt in prompts], left, 0, before=True).long(),
        "completion_ids": filled(answers, right, pad_id).long(),
        "completion_mask": filled([[1] * len(answer) for answer in answers], right, 0).long(),
        "tool_mask": mask.long(),
        "advantages": filled([spread(row["advantages"], m) for row, m in zip(rows, trained, strict=True)], right, 0.0),
        "old_per_token_logps": filled([spread(row["old_logprobs"], m) for row, m in zip(rows, trained, strict=True)], right, 0.0),
        "num_items_in_batch": mask.sum(),
    }


def steps(make: Callable[[str, TrainingJob, Path], Any], job: TrainingJob, repeats: int) -> dict[str, Any]:
    """Median seconds of a step on each side, the losses of its first step, and the median ratios of neighbouring passes."""
    passes: list[dict[str, float]] = []
    losses: dict[str, float] = {}
    for repeat in range(repeats):
        found: dict[str, float] = {}
        for side in SIDES if repeat % 2 == 0 else SIDES[::-1]:
            with tempfile.TemporaryDirectory() as folder, plain() if side == "plain" else ExitStack():
                trainer, watch = make(side, job, Path(folder)), Watch()
                trainer.add_callback(watch)
                trainer.train()
                found[side] = statistics.median(watch.seconds)
                losses[side] = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
        passes.append(found)
    ratios = {side: statistics.median(one[side] / one["trl"] for one in passes) for side in SIDES[:2]}
    seconds = {side: statistics.median(one[side] for one in passes) for side in SIDES}
    return {"seconds": seconds, "ratio_to_trl": ratios, "first_loss": losses, "passes": passes}


def positions(batches: Sequence[Sequence[Example]], collator: RowCollator) -> dict[str, int]:
    """Positions that go through the model in each layout."""
    laid = {"padded": 0, "packed": 0, "shared_prefix": 0, "prefix_tree": 0}
    for batch in batches:
        lengths = [len(example["input_ids"]) for example in batch]
        laid["padded"] += len(batch) * max(lengths)
        laid["packed"] += sum(lengths)
        laid["shared_prefix"] += collator(batch)["input_ids"].numel()
        laid["prefix_tree"] += prefix_tree(batch)
    return laid


def prefix_tree(batch: Sequence[Example]) -> int:
    """Ids of a batch when every prefix is there once."""
    ranked = sorted(example["input_ids"] for example in batch)
    total = len(ranked[0])
    for one, other in pairwise(ranked):
        common = next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        total += len(other) - common
    return total


def layouts(rows: Sequence[Row], job: TrainingJob, timed: int) -> dict[str, Any]:
    """What each layout costs on these rows, by rows a batch."""
    examples: list[Example] = [{"input_ids": list(row.input_ids), "labels": list(labels_of(row.input_ids, row.mask))} for row in rows]
    tokenizer = AutoTokenizer.from_pretrained(job.model, local_files_only=True)
    collator = RowCollator(tokenizer.pad_token_id or 0, share_prefix=True)
    found: dict[str, Any] = {"rows": len(rows), "ids": sum(len(row.input_ids) for row in rows)}
    for size in SIZES:
        planned = grouped_batches([row.provenance.tree for row in rows], size, seed=0, epoch=0)
        batches = [[examples[index] for index in batch] for batch in planned if len(batch) > 1]
        counted = positions(batches, collator)
        found[f"batches of {size}"] = {
            "positions": counted,
            "share_of_padded": {name: round(count / counted["padded"], 4) for name, count in counted.items()},
            "seconds": seconds_of(batches[:timed], job, collator) if size == SIZES[0] else {},
        }
    return found


def seconds_of(batches: Sequence[Sequence[Example]], job: TrainingJob, collator: RowCollator) -> dict[str, float]:
    """Seconds of a forward and backward pass over these batches in each layout, the faster of two passes."""
    if not batches:
        return {}
    from trl.trainer.utils import add_fused_lm_head

    base = sft.load_base(job)
    add_fused_lm_head(base)
    model = attach_adapter(base, job)
    use_masked_head(base)
    kinds: dict[str, Callable[[Sequence[Example]], dict[str, torch.Tensor]]] = {
        "padded": lambda batch: pad(batch, collator.pad_id),
        "packed": lambda batch: pack(batch, collator.pad_id),
        "shared_prefix": collator,
    }
    best = dict.fromkeys(kinds, float("inf"))
    for _ in range(2):
        for name, lay in kinds.items():
            began = time.monotonic()
            for batch in batches:
                model(**lay(batch), fused_lm_head=True, use_cache=False).loss.backward()
                model.zero_grad()
            best[name] = min(best[name], time.monotonic() - began)
    return {name: round(seconds, 3) for name, seconds in best.items()}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--trees", type=Path, nargs="+", required=True, help="artifacts of trees, of one model's runs")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rows", type=int, default=16, help="rows of a pass")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--timed", type=int, default=1, help="batches of 8 whose layouts are timed")
    parser.add_argument("--longest", type=int, default=1024, help="rows with more ids are left out")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    result = run(arguments) | about_machine()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n")
    print(json.dumps(result["steps"], indent=1))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured."""
    everything = rows_of(arguments.trees, None, arguments.longest)
    some = [as_drawn(row) for row in rows_of(arguments.trees, arguments.rows, arguments.longest)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write_rows(path, some)
        job = TrainingJob(
            model=str(resolve(arguments.model).path),
            rows=(str(path),),
            output=f"{folder}/adapter",
            batch_size=arguments.batch_size,
            scheduler="constant",
            warmup=0.0,
            max_length=arguments.longest,
            too_long="skip",
            device="cpu",
        )
        timed = {
            "sft": steps(sft_trainer, replace(job, rows=(plain_rows(some, Path(folder)),)), arguments.repeats),
            "grpo": steps(grpo_trainer, replace(job, method="grpo"), arguments.repeats),
        }
        found = layouts(everything, job, arguments.timed)
    settings = {"rows": len(some), "batch_size": arguments.batch_size, "ids_a_row": sum(len(row.input_ids) for row in some) // len(some)}
    names = [path.parents[3].name + "/" + path.parents[1].name + "/" + path.stem for path in arguments.trees]
    return {"model": arguments.model, "steps": timed | settings, "layouts": found | {"trees": names}}


def as_drawn(row: Row) -> Row:
    """The row as if it had been drawn plainly: what a search chose has no log-probabilities, on whose values no time depends."""
    return replace(row, temperature=1.0, authored=False, logprobs=row.logprobs or tuple(-0.5 if m else 0.0 for m in row.mask))


def plain_rows(rows: Sequence[Row], folder: Path) -> str:
    """The same rows as SFT takes them."""
    path = folder / "imitated.parquet"
    write_rows(path, [replace(row, advantages=None, logprobs=None) for row in rows])
    return str(path)


if __name__ == "__main__":
    main()
