"""SFT: exactly the rows' ids and masks reach the model, the loss is the token mean, and equal trainings give equal bytes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from agentloop.dataset.row import Row
from agentloop.errors import Mistake, RunFailed
from agentloop.training.job import Trained, TrainingJob
from tests.training.random_rows import random_rows

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

MakeJob = Callable[..., TrainingJob]


def run(job: TrainingJob, tmp_path: Path) -> Trained:
    from agentloop.training import sft

    work = tmp_path / f"work-{Path(job.output).name}"
    work.mkdir(exist_ok=True)
    return sft.run(job, work)


def adapter_bytes(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def what_reaches_the_model(job: TrainingJob, tmp_path: Path) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """One epoch's sequences as the base model's forward gets them, padding and filler taken off: (ids, mask of what is trained on)."""
    from agentloop.training import sft
    from agentloop.training.collate import PREFIX
    from agentloop.training.row_data import load_rows

    trainer, _ = sft.make_trainer(job, load_rows(job), tmp_path)
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def spy(_module: object, _args: object, keywords: dict[str, torch.Tensor]) -> None:
        ids, labels = keywords["input_ids"], keywords["labels"]
        if "owners" in keywords:
            owners = keywords["owners"][0]
            rows = [(owners == PREFIX) | (owners == owner) for owner in range(int(owners.max()) + 1)]
            pieces = [(ids[0, row], labels[0, row]) for row in rows]
        elif keywords.get("attention_mask") is not None:
            pieces = [
                (row[real.bool()], label[real.bool()]) for row, label, real in zip(ids, labels, keywords["attention_mask"], strict=True)
            ]
        else:
            starts = (keywords["position_ids"][0] == 0).nonzero().flatten().tolist() + [ids.shape[1]]
            pieces = [(ids[0, a:b], labels[0, a:b]) for a, b in pairwise(starts)]
        for piece_ids, piece_labels in pieces:
            trained = piece_labels != -100
            assert torch.equal(piece_labels[trained], piece_ids[trained]), "what is trained on is the id itself"
            seen.append((tuple(piece_ids.tolist()), tuple(trained.int().tolist())))

    trainer.model.get_base_model().register_forward_pre_hook(spy, with_kwargs=True)
    trainer.train()
    return [piece for piece in seen if any(piece[1])]


def with_prefix(rows: list[Row], length: int) -> list[Row]:
    """The rows behind a beginning in common, as a system prompt with worked examples is."""
    prefix = tuple(2 + index % 90 for index in range(length))
    return [replace(row, input_ids=prefix + row.input_ids, mask=(0,) * length + row.mask) for row in rows]


@pytest.mark.parametrize(("packing", "prefix"), [(False, 0), (True, 0), (False, 30)])
def test_what_reaches_the_model_is_the_rows_id_by_id(make_job: MakeJob, tmp_path: Path, packing: bool, prefix: int):
    """Pitfalls 3 and 4: the first answer id and the stop token are trained on; nothing is added, lost, cut or shifted."""
    rows = with_prefix(random_rows(11), prefix)
    seen = what_reaches_the_model(make_job(rows, packing=packing), tmp_path)
    assert sorted(seen) == sorted((row.input_ids, row.mask) for row in rows)
    for ids, mask in seen:
        first = mask.index(1)
        assert mask[first - 1] == 0 and ids[-1] == 1 and mask[-1] == 1


def token_mean_loss(model_path: Path, rows: list[Row]) -> float:
    """The loss by its definition, row by row: softmax, pick, logarithm; one division at the end."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            probabilities = torch.softmax(model(torch.tensor([row.input_ids])).logits[0].double(), dim=-1)
            for position, trained in enumerate(row.mask):
                if trained:
                    total -= math.log(probabilities[position - 1, row.input_ids[position]].item())
                    count += 1
    return total / count


@pytest.mark.parametrize("changes", [{}, {"packing": True}, {"gradient_accumulation": 3}, {"gradient_checkpointing": True}])
def test_the_loss_is_the_mean_over_all_trained_tokens_of_the_batch(
    make_job: MakeJob, random_model: Path, tmp_path: Path, changes: dict[str, object]
):
    rows = random_rows(6, seed=2)
    trained = run(make_job(rows, batch_size=6, **changes), tmp_path)
    assert trained.steps == 1 and trained.rows == 6
    assert trained.loss_first == pytest.approx(token_mean_loss(random_model, rows), abs=1e-5)
    assert trained.trained_tokens == sum(sum(row.mask) for row in rows)
    assert trained.total_tokens == sum(len(row.input_ids) for row in rows)


def test_a_short_last_batch_is_neither_dropped_nor_filled_with_rows_seen_before(make_job: MakeJob, tmp_path: Path):
    rows = random_rows(7, seed=5)
    trained = run(make_job(rows, batch_size=4, epochs=3), tmp_path)
    assert trained.steps == 6 and trained.trained_tokens == 3 * sum(sum(row.mask) for row in rows)
    filler = 3 * 1 * 2  # one row is missing in one batch an epoch; the filler has two ids, padded to the batch's longest row
    assert trained.computed_tokens >= trained.total_tokens + filler


def weights(folder: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(Path(folder) / "adapter_model.safetensors")


def losses(folder: str, tmp_path: Path) -> list[float]:
    records = (tmp_path / f"work-{Path(folder).name}" / "progress.jsonl").read_text().splitlines()
    return [json.loads(record)["loss"] for record in records]


def test_packing_padding_and_pieces_learn_the_same(make_job: MakeJob, tmp_path: Path):
    """Rows that are packed together do not see each other: the losses of all steps are those of padded rows. (Weights are compared by their
    mean: where a gradient is nearly 0, Adam makes a whole step of its rounding.)"""
    rows = random_rows(12, seed=3)
    learned, curves = {}, {}
    for name, changes in {"plain": {}, "packed": {"packing": True}, "pieces": {"gradient_accumulation": 2}}.items():
        job = make_job(rows, output=str(tmp_path / name), epochs=2, **changes)
        run(job, tmp_path)
        learned[name], curves[name] = weights(job.output), losses(job.output, tmp_path)
    for name in ("packed", "pieces"):
        assert curves[name] == pytest.approx(curves["plain"], abs=1e-5) and len(curves[name]) == 6
        difference = [float((value - learned[name][key]).abs().mean()) for key, value in learned["plain"].items()]
        assert max(difference) < 1e-4, "a step is up to 1e-2"


def test_rows_behind_a_shared_prefix_learn_what_padded_rows_do(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from agentloop.training import sft

    rows = with_prefix(random_rows(11, seed=6), 40)
    shared = make_job(rows, output=str(tmp_path / "shared"), epochs=2)
    padded = replace(shared, output=str(tmp_path / "padded"))
    of_shared = run(shared, tmp_path)
    monkeypatch.setattr(sft, "can_share_prefix", lambda model: False)
    of_padded = run(padded, tmp_path)
    assert of_shared.total_tokens == of_padded.total_tokens < of_padded.computed_tokens
    assert of_shared.computed_tokens < 0.6 * of_padded.computed_tokens, "the prefix is computed once a batch"
    assert losses(shared.output, tmp_path) == pytest.approx(losses(padded.output, tmp_path), abs=1e-5)
    ours, theirs = weights(shared.output), weights(padded.output)
    assert max(float((ours[key] - theirs[key]).abs().mean()) for key in ours) < 1e-4


def test_equal_trainings_give_equal_bytes_in_any_folder(make_job: MakeJob, tmp_path: Path):
    rows = random_rows(10)
    first = make_job(rows, output=str(tmp_path / "one" / "adapter"), dropout=0.1, epochs=2)
    second = make_job(rows[::-1], output=str(tmp_path / "two" / "deeper" / "adapter"), dropout=0.1, epochs=2)
    for job in (first, second):
        Path(job.output).parent.mkdir(parents=True)
        run(job, tmp_path / "one")
    assert adapter_bytes(first.output) == adapter_bytes(second.output)
    other = replace(first, output=str(tmp_path / "other"), seed=1)
    run(other, tmp_path)
    assert adapter_bytes(other.output) != adapter_bytes(first.output)


def test_the_adapter_is_plain_lora_that_names_its_model_and_no_path(make_job: MakeJob, tmp_path: Path):
    job = make_job(random_rows(4), alpha=8.0)
    run(job, tmp_path)
    assert sorted(os.listdir(job.output)) == ["adapter_config.json", "adapter_model.safetensors"]
    text = (Path(job.output) / "adapter_config.json").read_text()
    config = json.loads(text)
    assert str(tmp_path) not in text and config["base_model_name_or_path"] == "random"
    assert (config["r"], config["lora_alpha"], config["use_dora"], config["modules_to_save"], config["bias"]) == (4, 8, False, None, "none")
    assert isinstance(config["lora_alpha"], int), "engines take whole numbers as such"
    layers = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    targets = config["target_modules"]
    assert targets == sorted(targets) and sorted({name.split(".")[-1] for name in targets}) == layers, (
        "all linear layers but the output head"
    )
    assert all(value.dtype == torch.float32 for value in weights(job.output).values())
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".partial")]


def test_what_a_killed_training_left_is_gone_after_the_next(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from agentloop.training import lora

    job = make_job(random_rows(4))
    with monkeypatch.context() as kill:
        # As after SIGKILL between the writing and the rename: nothing is tidied up.
        kill.setattr(lora.os, "rename", lambda old, new: (_ for _ in ()).throw(KeyboardInterrupt))
        kill.setattr(lora.shutil, "rmtree", lambda path, ignore_errors: None)
        with pytest.raises(KeyboardInterrupt):
            run(job, tmp_path)
    leftovers = {path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")}
    assert leftovers and not Path(job.output).exists()
    run(job, tmp_path)
    assert Path(job.output).is_dir() and not [path for path in tmp_path.iterdir() if path.name in leftovers]


def test_a_training_goes_on_from_an_adapter(make_job: MakeJob, random_model: Path, tmp_path: Path):
    rows = random_rows(8)
    first = run(make_job(rows, batch_size=8, epochs=8, output=str(tmp_path / "first")), tmp_path)
    second = run(make_job(rows, batch_size=8, epochs=2, start=first.adapter_path, output=str(tmp_path / "second")), tmp_path)
    assert first.loss_first == pytest.approx(token_mean_loss(random_model, rows), abs=1e-5), "a fresh adapter changes nothing at first"
    assert second.loss_first < first.loss_last < first.loss_first - 0.1
    frozen = run(make_job(rows, batch_size=8, learning_rate=1e-30, start=first.adapter_path, output=str(tmp_path / "third")), tmp_path)
    before, after = weights(first.adapter_path), weights(frozen.adapter_path)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before), (
        "it begins with these very weights"
    )


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (random_rows(3, longest=40), {"max_length": 5}, "rows are longer than max_length, and rows are never cut; found 'max_length 5'"),
        ([replace(random_rows(1)[0], input_ids=(5, 99), mask=(0, 1))], {}, "rows hold ids that random does not have"),
        ([replace(random_rows(1)[0], input_ids=(5, 9), mask=(1, 1))], {}, "trains on its first id"),
        (random_rows(1), {"start": "/nowhere"}, "/nowhere: not an adapter to start from"),
        (random_rows(1), {"learning_rate": 1e-3, "target_modules": ("no_such_layer",)}, "no layer"),
    ],
)
def test_what_cannot_be_trained_is_refused(make_job: MakeJob, tmp_path: Path, rows: list[Row], changes: dict[str, object], message: str):
    job = make_job(rows, **changes)
    with pytest.raises(Mistake) as refused:
        run(job, tmp_path)
    assert message in str(refused.value)
    assert not Path(job.output).exists()


def test_an_adapter_of_another_shape_is_not_gone_on_from(make_job: MakeJob, tmp_path: Path):
    rows = random_rows(2)
    first = run(make_job(rows, output=str(tmp_path / "first")), tmp_path)
    with pytest.raises(Mistake, match="another rank; found 4; expected the job.s 8"):
        run(make_job(rows, rank=8, start=first.adapter_path, output=str(tmp_path / "second")), tmp_path)


def test_no_rows_are_a_failed_run(make_job: MakeJob, tmp_path: Path):
    for rows, changes, says in (
        ([], {}, r"\(0 skipped as too long\); sample more tasks"),
        (random_rows(2), {"role": "critic"}, r"of role 'critic' to train on in .*; they are of actor"),
        (random_rows(2, longest=40), {"max_length": 3, "too_long": "skip"}, r"\(2 skipped as too long\)"),
    ):
        with pytest.raises(RunFailed, match=f"no rows.*{says}"):
            run(make_job(rows, **changes), tmp_path)


def test_long_rows_can_be_left_out_and_are_counted(make_job: MakeJob, tmp_path: Path):
    rows = random_rows(8)
    limit = sorted(len(row.input_ids) for row in rows)[4]
    fitting = [row for row in rows if len(row.input_ids) <= limit]
    trained = run(make_job(rows, max_length=limit, too_long="skip"), tmp_path)
    assert (trained.rows, trained.skipped) == (len(fitting), len(rows) - len(fitting))
    assert trained.total_tokens == sum(len(row.input_ids) for row in fitting)


def test_rows_of_a_role_and_a_draw_of_them(make_job: MakeJob, tmp_path: Path):
    from agentloop.training.row_data import load_rows

    rows = [replace(row, role="critic" if index % 2 else "actor") for index, row in enumerate(random_rows(10))]
    of_critic = load_rows(make_job(rows, role="critic"))
    assert sorted(of_critic.input_ids) == sorted(row.input_ids for row in rows if row.role == "critic")
    drawn = load_rows(make_job(rows, max_rows=4, seed=1))
    assert len(drawn.input_ids) == 4
    assert drawn == load_rows(make_job(rows[::-1], max_rows=4, seed=1)), "the order in which rows are stored means nothing"
    assert drawn != load_rows(make_job(rows, max_rows=4, seed=2))


@pytest.fixture
def rates(make_job: MakeJob, tmp_path: Path) -> Iterator[list[float]]:
    run(make_job(random_rows(20), batch_size=2, warmup=0.2, scheduler="linear", learning_rate=1.0), tmp_path)
    yield [json.loads(line)["learning_rate"] for line in (tmp_path / "work-adapter" / "progress.jsonl").read_text().splitlines()]


def test_the_rate_rises_for_the_share_of_warmup_and_then_falls(rates: list[float]):
    assert rates == pytest.approx([0.0, 0.5, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_a_training_stops_after_a_number_of_updates_or_a_part_of_an_epoch(make_job: MakeJob, tmp_path: Path):
    rows = random_rows(8)
    assert run(make_job(rows, batch_size=2, updates=3, output=str(tmp_path / "a")), tmp_path).steps == 3
    half = run(make_job(rows, batch_size=2, epochs=1.5, output=str(tmp_path / "b")), tmp_path)
    assert half.steps == 6


@pytest.mark.slow
def test_two_processes_learn_what_one_does(make_job: MakeJob, tmp_path: Path):
    """Through torchrun: the world has two processes, and one step's loss and weights are those of one process with the same batch."""
    from agentloop.training.launch import train

    rows = random_rows(7, seed=4)
    one = run(make_job(rows, batch_size=4, output=str(tmp_path / "one")), tmp_path)
    seen: list[dict[str, float]] = []
    two = train(make_job(rows, batch_size=4, processes=2, output=str(tmp_path / "two")), on_progress=seen.append)
    assert (one.world_size, two.world_size) == (1, 2)
    assert (two.steps, two.rows, two.trained_tokens) == (one.steps, one.rows, one.trained_tokens) == (2, 7, one.trained_tokens)
    assert two.loss_first == pytest.approx(one.loss_first, abs=1e-5) and two.loss_last == pytest.approx(one.loss_last, abs=1e-5)
    assert [record["step"] for record in seen] == [1, 2] and seen[0]["loss"] == two.loss_first and seen[1]["tokens_per_second"] > 0
    ours, theirs = weights(one.adapter_path), weights(two.adapter_path)
    assert all(float((ours[key] - theirs[key]).abs().mean()) < 1e-4 for key in ours)


def test_a_world_of_another_size_is_refused(make_job: MakeJob, tmp_path: Path):
    with pytest.raises(RunFailed, match="was to run in 2 processes and runs in 1"):
        run(make_job(random_rows(4), processes=2), tmp_path)


@pytest.mark.slow
def test_the_launched_process_gives_the_bytes_of_this_one(make_job: MakeJob, tmp_path: Path):
    from agentloop.training.launch import train

    rows = random_rows(6)
    here, there = (
        make_job(rows, output=str(tmp_path / "here")),
        make_job(rows, output=str(tmp_path / "there"), threads=torch.get_num_threads()),
    )
    assert train(there).loss_last == run(here, tmp_path).loss_last
    assert adapter_bytes(here.output) == adapter_bytes(there.output)
