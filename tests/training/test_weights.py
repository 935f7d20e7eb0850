"""SFT with weights: the loss by its definition, one divisor over pieces and processes, and a reference for what is unlearnt."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agentloop.dataset.row import Row
from agentloop.errors import Mistake
from agentloop.training.job import Trained, TrainingJob
from tests.training.random_rows import random_rows

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

MakeJob = Callable[..., TrainingJob]
BY_ROW = {"aggregate": "row"}


def run(job: TrainingJob, tmp_path: Path) -> Trained:
    from agentloop.training import sft

    work = tmp_path / f"work-{Path(job.output).name}"
    work.mkdir(exist_ok=True)
    return sft.run(job, work)


def adapter(folder: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(Path(folder) / "adapter_model.safetensors")


def losses(job: TrainingJob, tmp_path: Path) -> list[float]:
    lines = (tmp_path / f"work-{Path(job.output).name}" / "progress.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def weighted_rows(count: int, *, seed: int, low: float = 0.05, high: float = 12.0) -> list[Row]:
    """Random rows with a weight each, every second one with weights of its ids too."""
    generator = random.Random(seed)
    return [
        replace(
            row,
            weight=generator.uniform(low, high),
            token_weights=tuple(generator.uniform(0, 2) for _ in row.mask) if index % 2 else None,
        )
        for index, row in enumerate(random_rows(count, seed=seed))
    ]


def logprobs(model_path: Path, row: Row) -> list[float]:
    """Log-probability of each trained id by the base model, one after the other."""
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        logits = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)(torch.tensor([row.input_ids])).logits[0].double()
    return [math.log(torch.softmax(logits[at - 1], dim=-1)[row.input_ids[at]].item()) for at, trained in enumerate(row.mask) if trained]


def by_definition(model_path: Path, rows: Sequence[Row], aggregate: str) -> float:
    """The loss before the first update, where policy and reference agree and what is unlearnt costs ln 2."""
    total = 0.0
    for row in rows:
        each = [weight for weight, trained in zip(row.token_weights or (1.0,) * len(row.mask), row.mask, strict=True) if trained]
        signed = [row.weight * weight for weight in each]
        found = zip(signed, logprobs(model_path, row), strict=True)
        terms = [weight * -logprob if weight >= 0 else -weight * math.log(2) for weight, logprob in found]
        total += sum(terms) / len(terms) if aggregate == "row" else sum(terms)
    return total / (len(rows) if aggregate == "row" else sum(row.trained for row in rows))


@pytest.mark.parametrize("aggregate", ["token", "row"])
@pytest.mark.parametrize("changes", [{}, {"packing": True}, {"gradient_accumulation": 3}])
@pytest.mark.parametrize("low", [0.05, -12.0])
def test_the_loss_is_its_definition(
    make_job: MakeJob, random_model: Path, tmp_path: Path, aggregate: str, changes: dict[str, object], low: float
):
    rows = weighted_rows(6, seed=2, low=low)
    trained = run(make_job(rows, batch_size=6, options={"aggregate": aggregate}, **changes), tmp_path)
    assert trained.steps == 1 and trained.trained_tokens == sum(row.trained for row in rows)
    assert trained.loss_first == pytest.approx(by_definition(random_model, rows, aggregate), rel=1e-5)


def test_a_short_batch_is_divided_by_the_rows_that_it_has(make_job: MakeJob, random_model: Path, tmp_path: Path):
    rows = weighted_rows(3, seed=3)
    trained = run(make_job(rows, batch_size=8, gradient_accumulation=4, options=BY_ROW), tmp_path)
    assert trained.loss_first == pytest.approx(by_definition(random_model, rows, "row"), rel=1e-5)


def test_weights_of_one_train_as_no_weights_do(make_job: MakeJob, tmp_path: Path):
    rows = random_rows(8, seed=1)
    plain = make_job(rows, output=str(tmp_path / "plain"), epochs=2)
    ones = make_job([replace(row, token_weights=(1.0,) * len(row.mask)) for row in rows], output=str(tmp_path / "ones"), epochs=2)
    run(plain, tmp_path)
    run(ones, tmp_path)
    assert all(torch.equal(value, adapter(ones.output)[name]) for name, value in adapter(plain.output).items())


def test_rows_behind_a_shared_prefix_learn_what_padded_ones_do(make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from agentloop.training import sft

    prefix = tuple(2 + index % 90 for index in range(40))
    rows = [
        replace(
            row,
            input_ids=prefix + row.input_ids,
            mask=(0,) * 40 + row.mask,
            token_weights=(1.0,) * 40 + row.token_weights if row.token_weights else None,
        )
        for row in weighted_rows(7, seed=6, low=-12.0)
    ]
    shared = make_job(rows, output=str(tmp_path / "shared"), epochs=2, options=BY_ROW)
    padded = replace(shared, output=str(tmp_path / "padded"))
    of_shared = run(shared, tmp_path)
    monkeypatch.setattr(sft, "can_share_prefix", lambda model: False)
    of_padded = run(padded, tmp_path)
    assert of_shared.computed_tokens < 0.7 * of_padded.computed_tokens
    assert losses(shared, tmp_path) == pytest.approx(losses(padded, tmp_path), rel=1e-5)


def mean_logprob(job: TrainingJob, row: Row, folder: str | None) -> float:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=torch.float32)
    if folder is not None:
        model = PeftModel.from_pretrained(model, folder)
    with torch.no_grad():
        scored = torch.log_softmax(model(torch.tensor([row.input_ids])).logits[0], dim=-1)
    return sum(scored[at - 1, row.input_ids[at]].item() for at, trained in enumerate(row.mask) if trained) / row.trained


def test_what_is_unlearnt_becomes_less_likely_than_under_the_adapter_that_it_began_with(make_job: MakeJob, tmp_path: Path):
    """The reference is the adapter that the training went on from: at the first step its loss is ln 2, and the adapter is saved alone."""
    good, bad = random_rows(2, seed=9)
    first = run(make_job([good, bad], batch_size=2, epochs=6, output=str(tmp_path / "first")), tmp_path)
    job = make_job(
        [good, replace(bad, weight=-1.0)],
        batch_size=2,
        epochs=20,
        start=first.adapter_path,
        output=str(tmp_path / "second"),
        options=BY_ROW,
    )
    second = run(job, tmp_path)
    begun = mean_logprob(job, good, first.adapter_path)
    assert second.loss_first == pytest.approx((-begun + math.log(2)) / 2, rel=1e-4)
    assert mean_logprob(job, bad, second.adapter_path) < mean_logprob(job, bad, first.adapter_path) - 0.5
    assert sorted(path.name for path in Path(job.output).iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert adapter(job.output).keys() == adapter(first.adapter_path).keys()


def test_a_weight_that_is_no_number_is_refused(make_job: MakeJob, tmp_path: Path):
    with pytest.raises(Mistake, match="a weight that is no number; found nan"):
        run(make_job([replace(random_rows(1)[0], weight=math.nan)]), tmp_path)
    with pytest.raises(Mistake, match="unknown aggregate.*found 'rows'.*did you mean 'row'"):
        run(make_job(random_rows(1), options={"aggregate": "rows"}), tmp_path)


@pytest.mark.usefixtures("warm_training")
def test_two_processes_learn_what_one_does(make_job: MakeJob, tmp_path: Path):
    """Over gloo, with rows of unequal weights and lengths, one short batch, and some rows unlearnt."""
    from agentloop.training.launch import train

    rows = weighted_rows(7, seed=4, low=-12.0)
    one = run(make_job(rows, batch_size=4, gradient_accumulation=2, options=BY_ROW, output=str(tmp_path / "one")), tmp_path)
    two = train(make_job(rows, batch_size=4, processes=2, options=BY_ROW, output=str(tmp_path / "two")))
    assert (one.world_size, two.world_size) == (1, 2) and two.steps == one.steps == 2
    assert (two.loss_first, two.loss_last) == pytest.approx((one.loss_first, one.loss_last), rel=1e-5)
    ours, theirs = adapter(one.adapter_path), adapter(two.adapter_path)
    assert all(float((ours[name] - theirs[name]).abs().mean()) < 1e-4 for name in ours), "a step is up to 1e-2"
