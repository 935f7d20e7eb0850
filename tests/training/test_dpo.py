"""DPO and KTO on ids: what reaches the model, the reference, TRL's own numbers, and one loss over pieces and processes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentloop.dataset.preference_row import PreferenceRow
from agentloop.dataset.row import Row
from agentloop.errors import Mistake, RunFailed
from agentloop.training.job import Trained, TrainingJob
from tests.training.random_rows import random_pairs, random_rows

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

MakeJob = Callable[..., TrainingJob]


@pytest.fixture
def make(make_job: MakeJob, tmp_path: Path) -> MakeJob:
    """A job on pairs or, for single rows, with KTO."""

    def made(rows: Sequence[PreferenceRow] | Sequence[Row], **changes: object) -> TrainingJob:
        method = "dpo" if rows and isinstance(rows[0], PreferenceRow) else "kto"
        return make_job(rows, **{"method": method, **changes})

    return made


def run(job: TrainingJob, tmp_path: Path) -> Trained:
    from agentloop.training import registry

    work = tmp_path / f"work-{Path(job.output).name}"
    work.mkdir(exist_ok=True)
    return registry.find(job.method)(job, work)


def progress(job: TrainingJob, tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / f"work-{Path(job.output).name}" / "progress.jsonl").read_text().splitlines()]


def adapter(folder: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(Path(folder) / "adapter_model.safetensors")


def outcomes(count: int, *, seed: int) -> list[Row]:
    """Rows of which every third one is a failure, each with a weight of its own."""
    return [replace(row, reward=float(index % 3 > 0), weight=0.5 + index) for index, row in enumerate(random_rows(count, seed=seed))]


@pytest.mark.parametrize("shared", [0, 40])
def test_both_sides_reach_the_model_id_by_id(make: MakeJob, tmp_path: Path, shared: int):
    """Nothing is tokenised, cut or added; the context and the observations between turns are seen and not trained on."""
    from agentloop.training import dpo
    from agentloop.training.collate import PREFIX
    from agentloop.training.pair_data import load_pairs

    pairs = random_pairs(5, shared=shared)
    job = make(pairs)
    trainer, _ = dpo.make_trainer(job, load_pairs(job), tmp_path)
    seen: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def spy(_module: object, _args: object, keywords: dict[str, torch.Tensor]) -> None:
        if not torch.is_grad_enabled():
            return  # the reference
        ids, labels = keywords["input_ids"], keywords["labels"]
        if "owners" in keywords:
            owners = keywords["owners"][0]
            mine = [(owners == PREFIX) | (owners == owner) for owner in range(int(owners.max()) + 1)]
            pieces = [(ids[0, of], labels[0, of]) for of in mine]
        else:
            pieces = [
                (row[real.bool()], label[real.bool()]) for row, label, real in zip(ids, labels, keywords["attention_mask"], strict=True)
            ]
        seen.extend((tuple(row.tolist()), tuple((label != -100).int().tolist())) for row, label in pieces)

    trainer.model.get_base_model().register_forward_pre_hook(spy, with_kwargs=True)
    trainer.train()
    sides = [(pair.prompt_ids, side) for pair in pairs for side in (pair.chosen, pair.rejected)]
    assert sorted(seen) == sorted((context + side.ids, (0,) * len(context) + side.mask) for context, side in sides)


def moved(trainer: Any) -> Any:
    """The trainer after its adapter went somewhere, as any training would, but not its reference."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in sorted(trainer.model.named_parameters()):
            if ".default." in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def gradients(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in trainer.model.named_parameters() if parameter.grad is not None}


def trls(job: TrainingJob, tmp_path: Path) -> Any:
    """TRL's own trainer of the method, given ids in place of text."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

    from agentloop.training import sft
    from agentloop.training.lora import attach_adapter

    config, trainer = (DPOConfig, DPOTrainer) if job.method == "dpo" else (KTOConfig, KTOTrainer)
    columns = ["prompt_ids", "chosen_ids", "rejected_ids", "completion_ids", "KL_completion_ids"]
    given = type("GivenIds", (trainer,), {"_prepare_dataset": lambda self, dataset, *_: dataset})
    return given(
        model=attach_adapter(sft.load_base(job), job),
        args=config(str(tmp_path / "trl"), use_cpu=True, bf16=False, gradient_checkpointing=False, beta=0.1, report_to="none"),
        train_dataset=Dataset.from_dict({**{name: [[1]] for name in columns}, "label": [True]}),
        processing_class=AutoTokenizer.from_pretrained(job.model),
    )


def as_trl_has_it(method: str, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our batch under the names of TRL's collators."""
    whole = {name: batch[name].clone() for name in ("input_ids", "attention_mask")} | {"completion_mask": (batch["labels"] != -100).long()}
    if method == "dpo":
        return whole
    own, crossed = ({name: tensor.chunk(2)[half] for name, tensor in whole.items()} for half in (0, 1))
    return own | {f"KL_{name}": tensor for name, tensor in crossed.items()} | {"label": batch["weights"] > 0}


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_loss_and_its_gradients_are_those_of_trls_own_trainer(
    make: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
):
    """In one piece, without weights or fillers, where the two can be compared; the policy has left its reference behind."""
    from agentloop.training import dpo, kto, sft
    from agentloop.training.kto import load_outcomes
    from agentloop.training.pair_data import load_pairs

    monkeypatch.setattr(sft, "can_share_prefix", lambda model: False)
    rows: Any = random_pairs(4, seed=1) if method == "dpo" else [replace(row, weight=1.0) for row in outcomes(4, seed=1)]
    first = run(make(rows, epochs=2, output=str(tmp_path / "first")), tmp_path)
    job = make(rows, start=first.adapter_path)
    made = dpo.make_trainer(job, load_pairs(job), tmp_path) if method == "dpo" else kto.make_trainer(job, load_outcomes(job), tmp_path)
    ours, theirs = moved(made[0]), moved(trls(job, tmp_path))
    batch = next(iter(ours.get_train_dataloader()))
    expected = theirs._compute_loss(theirs.model, as_trl_has_it(method, batch), False)
    expected.backward()
    found = ours.compute_loss(ours.model, batch, num_items_in_batch=torch.tensor(4))
    found.backward()
    assert abs(found.item() - (math.log(2) if method == "dpo" else 0.5)) > 0.01
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    of_ours, of_theirs = gradients(ours), gradients(theirs)
    assert of_ours.keys() == of_theirs.keys() and of_ours
    assert max(float((of_ours[name] - of_theirs[name]).abs().max()) for name in of_ours) < 1e-5


@pytest.mark.parametrize("rows", [random_pairs(4, seed=2), outcomes(4, seed=2)], ids=["dpo", "kto"])
def test_the_reference_is_the_adapter_that_it_began_with(make: MakeJob, tmp_path: Path, rows: Any):
    """At first every log-ratio is 0, whether the training starts afresh or goes on; the copy is frozen, and not saved."""
    first = make(rows, batch_size=4, epochs=6, output=str(tmp_path / "first"))
    second = make(rows, batch_size=4, epochs=6, start=first.output, output=str(tmp_path / "second"))
    at_first = math.log(2) if first.method == "dpo" else 0.5 * sum(row.weight for row in rows) / 4
    for job in (first, second):
        trained = run(job, tmp_path)
        assert trained.loss_first == pytest.approx(at_first, rel=1e-5) and trained.loss_last < trained.loss_first
        steps = progress(job, tmp_path)
        assert steps[0]["margin"] == pytest.approx(0, abs=1e-5) and steps[-1]["margin"] > 0 and steps[-1]["preferred"] == 1.0
    assert sorted(path.name for path in Path(second.output).iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    before, after = adapter(first.output), adapter(second.output)
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)


def test_there_is_no_second_model(make: MakeJob, tmp_path: Path):
    from agentloop.training import dpo, sft
    from agentloop.training.pair_data import load_pairs

    pairs = random_pairs(2)
    first = run(make(pairs, output=str(tmp_path / "first")), tmp_path)
    bare = sum(parameter.numel() for parameter in sft.load_base(make(pairs)).parameters())
    small = sum(value.numel() for value in adapter(first.adapter_path).values())
    for start, copies in ((None, 1), (first.adapter_path, 2)):
        job = make(pairs, start=start)
        trainer, _ = dpo.make_trainer(job, load_pairs(job), tmp_path)
        parameters = list(trainer.model.parameters())
        assert sum(parameter.numel() for parameter in parameters) == bare + copies * small
        assert sum(parameter.numel() for parameter in parameters if parameter.requires_grad) == small, "the reference is frozen"


@pytest.mark.parametrize("form", ["sigmoid", "simpo", "orpo"])
def test_weights_pieces_and_short_batches_are_one_loss(make: MakeJob, tmp_path: Path, form: str):
    """7 pairs in batches of 4: the second batch is short, and is divided by the pairs that it has."""
    pairs = [replace(pair, weight=0.5 + index) for index, pair in enumerate(random_pairs(7, seed=3))]
    options = {"loss": form, "beta": 1.0, "imitation": 0.0 if form == "orpo" else 0.2}
    curves = {}
    for name, changes in {"whole": {}, "pieces": {"gradient_accumulation": 4}}.items():
        job = make(pairs, output=str(tmp_path / name), epochs=2, options=options, **changes)
        trained = run(job, tmp_path)
        assert (trained.steps, trained.rows) == (4, 7)
        curves[name] = [line["loss"] for line in progress(job, tmp_path)]
    assert curves["pieces"] == pytest.approx(curves["whole"], rel=1e-5)


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_sequences_behind_a_shared_prefix_learn_what_padded_ones_do(
    make: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
):
    from agentloop.training import sft

    prefix = tuple(2 + place % 90 for place in range(40))
    alike = [replace(row, input_ids=prefix + row.input_ids, mask=(0,) * 40 + row.mask) for row in outcomes(7, seed=6)]
    rows: Any = random_pairs(7, seed=6, shared=40) if kind == "dpo" else alike
    shared = make(rows, output=str(tmp_path / "shared"), epochs=2)
    padded = replace(shared, output=str(tmp_path / "padded"))
    of_shared = run(shared, tmp_path)
    monkeypatch.setattr(sft, "can_share_prefix", lambda model: False)
    of_padded = run(padded, tmp_path)
    assert of_shared.computed_tokens < 0.7 * of_padded.computed_tokens
    losses = ([line["loss"] for line in progress(job, tmp_path)] for job in (shared, padded))
    assert next(losses) == pytest.approx(next(losses), rel=1e-5)


@pytest.mark.usefixtures("warm_training")
@pytest.mark.parametrize("rows", [random_pairs(7, seed=4), outcomes(7, seed=4)], ids=["dpo", "kto"])
def test_two_processes_learn_what_one_does(make: MakeJob, tmp_path: Path, rows: Any):
    from agentloop.training.launch import train

    first = run(make(rows, output=str(tmp_path / "first")), tmp_path)
    one = make(rows, start=first.adapter_path, output=str(tmp_path / "one"))
    two = replace(one, output=str(tmp_path / "two"), processes=2)
    of_one, of_two = run(one, tmp_path), train(two, work_dir=tmp_path / "work-two")
    assert (of_one.world_size, of_two.world_size) == (1, 2) and of_one.steps == of_two.steps == 2
    for step, other in zip(progress(one, tmp_path), progress(two, tmp_path), strict=True):
        assert [other[name] for name in ("loss", "margin", "preferred")] == pytest.approx(
            [step[name] for name in ("loss", "margin", "preferred")], rel=1e-4, abs=1e-5
        )
    ours, theirs = adapter(one.output), adapter(two.output)
    assert all(float((ours[name] - theirs[name]).abs().mean()) < 1e-4 for name in ours), "a step is up to 1e-2"


def test_ktos_other_continuations_are_those_of_the_rows_before(make: MakeJob):
    from agentloop.training.kto import load_outcomes

    rows = sorted(outcomes(4, seed=8), key=lambda row: row.id)
    data = load_outcomes(make(rows))
    longest = max(len(row.input_ids) for row in rows)
    for place, ((own, crossed), (labels, crossed_labels)) in enumerate(zip(data.input_ids, data.labels, strict=True)):
        row, other = rows[place], rows[place - 1]
        context, start = row.mask.index(1), other.mask.index(1)
        assert own == row.input_ids and [label != -100 for label in labels] == list(map(bool, row.mask))
        assert crossed == (row.input_ids[:context] + other.input_ids[start:])[:longest]
        assert [label != -100 for label in crossed_labels] == ([False] * context + list(map(bool, other.mask[start:])))[:longest]
    assert [weight > 0 for weight in data.weights] == [row.reward == 1.0 for row in rows]
    assert data.trained_tokens == sum(row.trained for row in rows)


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (random_rows(2), {"method": "dpo"}, "this file holds rows"),
        (random_pairs(2), {"method": "sft"}, "this file holds preference rows"),
        (random_pairs(2), {"packing": True}, "pairs are not packed"),
        (random_pairs(2), {"options": {"loss": "sigmod"}}, "unknown loss of a training; found 'sigmod'"),
        (random_pairs(2), {"options": {"bta": 1}}, "training method 'dpo' has no option 'bta'"),
        (random_pairs(2), {"options": {"beta": 0.0}}, "beta of a training is out of range; found 0.0; expected more than 0"),
        (random_pairs(2), {"max_length": 5}, "2 of 2 rows are longer than max_length"),
        ([replace(random_pairs(1)[0], weight=-1.0)], {}, "a weight that is no number from 0 on"),
        ([replace(outcomes(1, seed=0)[0], weight=0.0)], {}, "a weight that is no positive number"),
        ([replace(random_pairs(1)[0], prompt_ids=())], {}, "trains on its first id"),
    ],
)
def test_what_cannot_be_trained_is_refused(make: MakeJob, tmp_path: Path, rows: Any, changes: dict[str, object], message: str):
    job = make(rows, **changes)
    with pytest.raises(Mistake) as refused:
        run(job, tmp_path)
    assert message in str(refused.value)


def test_no_pairs_are_a_failed_run(make: MakeJob, tmp_path: Path):
    with pytest.raises(RunFailed, match="no rows of role 'critic' to train on"):
        run(make(random_pairs(2), role="critic"), tmp_path)
