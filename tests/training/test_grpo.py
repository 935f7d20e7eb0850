"""Policy gradients: the loss and its gradient against plain formulas, the rows id by id, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentloop.dataset.row import Row
from agentloop.errors import Mistake, RunFailed
from agentloop.training.job import Trained, TrainingJob
from agentloop.training.policy_settings import Covariance
from tests.training.policy_rows import plain_loss, policy_rows
from tests.training.test_sft import adapter_bytes, with_prefix

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

MakeJob = Callable[..., TrainingJob]

LOSSES: list[dict[str, Any]] = [
    {},
    {"clip_low": 0.1, "clip_high": 0.4},
    {"kl": 0.3},
    {"correction": 1.2},
    {"correction": 2.0, "kl": 0.1},
    {"loss": "reinforce"},
    {"loss": "reinforce", "kl": 0.2},
    {"aggregate": "sequence"},
    {"aggregate": "sequence", "kl": 0.3},
    {"aggregate": "constant", "length": 7},
]


def trainer_of(job: TrainingJob, work: Path) -> Any:
    """TRL's trainer over the job's rows, with everything remembered that its loss needs."""
    from agentloop.training import grpo
    from agentloop.training.policy_data import load_policy_rows
    from agentloop.training.policy_settings import PolicySettings

    settings = PolicySettings.of(job.options)
    data = load_policy_rows(job, settings)
    trainer, _ = grpo.make_trainer(job, data, grpo.plan(job, data), settings, work)
    trainer.current_gradient_accumulation_steps = job.gradient_accumulation  # as the training loop sets it
    return trainer


def batch_of(trainer: Any) -> dict[str, Any]:
    """All examples but the filler, as TRL's loss takes them."""
    return trainer._generate_and_score_completions([trainer.train_dataset[at] for at in range(len(trainer.train_dataset) - 1)])


@pytest.mark.parametrize("options", LOSSES, ids=str)
def test_the_loss_is_the_papers_on_random_tensors(make_job: MakeJob, tmp_path: Path, options: dict[str, Any]) -> None:
    """Values and gradients, token by token, in float32, with ratios on both sides of the clip."""
    rows = policy_rows(5, seed=1)
    trainer = trainer_of(make_job(rows, batch_size=5, options=options), tmp_path)
    counts = [len(row["advantages"]) for row in trainer.train_dataset][:5]
    trainer.start_logprobs = {at: [-4.5 - 0.1 * (at + k) for k in range(count)] for at, count in enumerate(counts)}
    batch = batch_of(trainer)
    mask = batch["completion_mask"]
    now = (-4.56 + torch.randn(mask.shape, generator=torch.Generator().manual_seed(3))).requires_grad_()
    trainer._score = lambda *_: (now * mask, torch.ones_like(now))
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    (found,) = torch.autograd.grad(loss, now)

    twin = now.detach().clone().requires_grad_()
    examples = batch["examples"]
    tokens = [
        [
            {"now": twin[at, k], "old": old, "start": trainer.start_logprobs[row["index"]][k], "advantage": advantage}
            for k, (advantage, old) in enumerate(zip(row["advantages"], row["old_logprobs"] or [0.0] * 99, strict=False))
        ]
        for at, row in enumerate(examples)
    ]
    expected = plain_loss(tokens, **options)
    (gradient,) = torch.autograd.grad(expected, twin)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert torch.allclose(found, gradient, atol=1e-5, rtol=1e-4)
    assert not found[mask == 0].any()


def scored_at_random(trainer: Any, batch: dict[str, Any]) -> tuple[float, Any]:
    """Loss and gradient for random log-probabilities of the batch's tokens."""
    mask = batch["completion_mask"]
    now = (-4.56 + torch.randn(mask.shape, generator=torch.Generator().manual_seed(3))).requires_grad_()
    trainer._score = lambda *_: (now * mask, torch.ones_like(now))
    loss = trainer.compute_loss(trainer.model.train(), batch)
    return loss.item(), torch.autograd.grad(loss, now)[0]


def test_tokens_that_sit_out_have_no_gradient_and_replayed_rows_the_replays_weight(make_job: MakeJob, tmp_path: Path) -> None:
    """Clip-cov multiplies the loss of its tokens by 0 and leaves the denominators; gamma multiplies the loss of replayed rows."""
    wide, narrow = {"share": 0.3, "low": -99.0, "high": 99.0}, {"share": 1.0, "low": -99.0, "high": 99.0}
    options = {"loss": "clip_cov", "covariance": wide, "replay": {"weight": 0.25, "covariance": wide}}
    trainer = trainer_of(make_job(policy_rows(5, seed=1), batch_size=5, options=options), tmp_path)
    clip = trainer_of(make_job(policy_rows(5, seed=1), batch_size=5, output=str(tmp_path / "clip")), tmp_path)
    batch = batch_of(trainer)
    mask = batch["completion_mask"] > 0
    loss, gradient = scored_at_random(trainer, batch)
    _, whole = scored_at_random(clip, batch)
    out = mask & (gradient == 0) & (whole != 0)
    assert int(out.sum()) == int(0.3 * int(mask.sum()))
    assert torch.equal(gradient[~out], whole[~out])

    trainer._dice.manual_seed(trainer.args.seed)
    again = {**batch, "examples": [{**row, "replayed": True} for row in batch["examples"]]}
    assert scored_at_random(trainer, again)[0] == pytest.approx(0.25 * loss, rel=1e-5)
    trainer._settings = replace(trainer._settings, replay=replace(trainer._settings.replay, covariance=Covariance(**narrow)))
    left = scored_at_random(trainer, again)[1][mask]
    assert int((left == 0).sum()) > int(out.sum()), (
        "replayed rows have a clip-cov of their own: here every token that is not clipped sits out"
    )


def token_logprobs(model: Any, row: Row, temperature: float) -> list[Any]:
    """Log-probability of each trained id, from a forward pass of the row alone."""
    logits = model(torch.tensor([row.input_ids])).logits[0].float() / temperature
    scores = torch.log_softmax(logits, dim=-1)
    return [scores[at - 1, token] for at, (token, trains) in enumerate(zip(row.input_ids, row.mask, strict=True)) if trains]


def stirred(trainer: Any) -> None:
    """Give the fresh adapter an effect, so that every matrix has a gradient."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.2)


@pytest.mark.parametrize(
    "changes", [{}, {"prefix": 30}, {"temperature": 0.7}, {"gradient_accumulation": 2}, {"gradient_checkpointing": True}], ids=str
)
def test_loss_and_gradients_of_the_model_are_those_of_single_rows(make_job: MakeJob, tmp_path: Path, changes: dict[str, Any]) -> None:
    """Rows exactly as they are: each alone, unpadded, through the whole vocabulary, gives the same loss and the same gradients."""
    temperature, prefix = changes.pop("temperature", 1.0), changes.pop("prefix", 0)
    rows = [replace(row, temperature=temperature) for row in policy_rows(4, seed=2)]
    if prefix:
        rows = [
            replace(longer, logprobs=(0.0,) * prefix + (row.logprobs or ()), advantages=(0.0,) * prefix + (row.advantages or ()))
            for row, longer in zip(rows, with_prefix([replace(row, logprobs=None, advantages=None) for row in rows], prefix), strict=True)
        ]
    trainer = trainer_of(make_job(rows, **changes), tmp_path)
    stirred(trainer)
    trainer.model.train()
    pieces = trainer.args.gradient_accumulation_steps
    batch = batch_of(trainer)
    total, examples = 0.0, batch["examples"]
    for piece in range(pieces):
        part = {
            name: values[piece::pieces] if not (isinstance(values, torch.Tensor) and values.ndim == 0) else values
            for name, values in batch.items()
        }
        loss = trainer.compute_loss(trainer.model, part)
        loss.backward()
        total += loss.item()
    found = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad()

    by_ids = {row.input_ids: row for row in rows}
    tokens = []
    for example in examples:
        row = by_ids[tuple(example["input_ids"])]
        now = token_logprobs(trainer.model, row, temperature)
        tokens.append(
            [
                {"now": p, "old": old, "advantage": advantage}
                for p, old, advantage in zip(now, example["old_logprobs"], example["advantages"], strict=True)
            ]
        )
    expected = plain_loss(tokens)
    expected.backward()
    assert total == pytest.approx(expected.item(), abs=1e-5)
    assert found and all(float(gradient.abs().max()) > 0 for name, gradient in found.items() if "lora_B" in name)
    for name, parameter in trainer.model.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(found[name], parameter.grad, atol=1e-5, rtol=1e-3), name


def run(job: TrainingJob, tmp_path: Path) -> Trained:
    from agentloop.training import grpo

    work = tmp_path / f"work-{Path(job.output).name}"
    work.mkdir(exist_ok=True)
    return grpo.run(job, work)


def test_what_is_good_becomes_likelier_and_what_is_bad_less_likely(make_job: MakeJob, tmp_path: Path) -> None:
    rows = policy_rows(8, seed=4)
    rows = [replace(row, advantages=tuple(m * (1.0 if k % 2 else -1.0) for m in row.mask)) for k, row in enumerate(rows)]
    job = make_job(rows, batch_size=8, updates=12, learning_rate=2e-2, options={"kl": 0.01})
    before = trainer_of(job, tmp_path)
    trained = run(job, tmp_path)
    after = trainer_of(replace(job, start=trained.adapter_path), tmp_path)
    gains = []
    for at in range(8):
        example = before.train_dataset[at]
        row = next(row for row in rows if row.input_ids == tuple(example["input_ids"]))
        gain = (sum(token_logprobs(after.model, row, 1.0)) - sum(token_logprobs(before.model, row, 1.0))).item()
        gains.append((example["advantages"][0], gain))
    assert all(gain > 0 for advantage, gain in gains if advantage > 0) and all(gain < 0 for advantage, gain in gains if advantage < 0)
    assert trained.steps == 12 and trained.facts["updates"] == 12 and trained.facts["kl"]["last"] > 0
    assert trained.facts["entropy"]["first"] > 0 and trained.trained_tokens == 12 * sum(row.trained for row in rows)


def test_the_start_is_remembered_from_before_the_first_update(make_job: MakeJob, tmp_path: Path) -> None:
    """The divergence is from the adapter's start, whatever that is, and 0 there; no second adapter is kept or saved."""
    rows = policy_rows(6, seed=6)
    start = run(make_job(rows, updates=3, output=str(tmp_path / "start")), tmp_path)
    trained = run(make_job(rows, updates=3, start=start.adapter_path, output=str(tmp_path / "on"), options={"kl": 0.5}), tmp_path)
    assert trained.facts["kl"]["first"] == pytest.approx(0.0, abs=1e-6) and trained.facts["kl"]["last"] > 1e-6
    assert sorted(path.name for path in (tmp_path / "on").iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_fillers_and_pieces_change_no_mean(make_job: MakeJob, tmp_path: Path) -> None:
    """Five rows in a batch of eight: the mean over rows is over five, in one piece or in four, of which the last has fillers alone."""
    rows = policy_rows(5, seed=7)
    for options in ({"aggregate": "sequence"}, {"aggregate": "constant", "length": 9}):
        losses = [
            run(
                make_job(
                    rows, batch_size=size, gradient_accumulation=pieces, output=str(tmp_path / f"{options}{size}{pieces}"), options=options
                ),
                tmp_path,
            ).loss_first
            for size, pieces in ((5, 1), (8, 1), (8, 4))
        ]
        assert losses[1] == pytest.approx(losses[0], abs=1e-5) and losses[2] == pytest.approx(losses[0], abs=1e-5)


def test_equal_trainings_give_equal_bytes(make_job: MakeJob, tmp_path: Path) -> None:
    rows = policy_rows(6, seed=8)
    one = run(make_job(rows, updates=2, output=str(tmp_path / "one"), options={"loss": "clip_cov", "covariance": {"low": -9.0}}), tmp_path)
    two = run(
        make_job(rows[::-1], updates=2, output=str(tmp_path / "two"), options={"loss": "clip_cov", "covariance": {"low": -9.0}}), tmp_path
    )
    assert adapter_bytes(one.adapter_path) == adapter_bytes(two.adapter_path)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"weight": 2.0}, {}, "has a weight, which this training method does not know"),
        ({"advantages": None}, {}, "has no advantages"),
        ({"logprobs": None}, {}, "is no plain draw of a policy, so it has no importance ratio"),
        ({"authored": True}, {}, "is no plain draw of a policy"),
        ({"temperature": 0.0}, {}, "rows were drawn greedily"),
        ({"adapter": "mine"}, {"max_staleness": 1}, "needs versioned names of adapters; found 'mine'"),
        ({}, {"clip_hihg": 0.3}, "unknown option 'clip_hihg' of a policy training; did you mean 'clip_high'"),
        ({}, {"loss": "reinforce", "correction": 2.0}, "has no ratio to correct"),
    ],
)
def test_what_has_no_meaning_for_the_loss_is_refused(
    make_job: MakeJob, tmp_path: Path, changes: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    rows = policy_rows(4)
    with pytest.raises(Mistake, match=message):
        run(
            make_job(
                [*rows[:3], replace(rows[3], **changes)] if "temperature" not in changes else [replace(r, **changes) for r in rows],
                options=options,
            ),
            tmp_path,
        )


def test_several_temperatures_are_refused(make_job: MakeJob, tmp_path: Path) -> None:
    rows = policy_rows(4)
    with pytest.raises(Mistake, match="several temperatures cannot share a training"):
        run(make_job([*rows[:3], replace(rows[3], temperature=0.5)]), tmp_path)


def test_rows_without_a_ratio_train_under_reinforce(make_job: MakeJob, tmp_path: Path) -> None:
    rows = [replace(row, logprobs=None) for row in policy_rows(4)]
    assert run(make_job(rows, options={"loss": "reinforce"}), tmp_path).steps == 1


def test_stale_rows_are_left_out_and_counted(make_job: MakeJob, tmp_path: Path) -> None:
    rows = [replace(row, adapter=f"actor-00{at}-abc") for at, row in enumerate(policy_rows(5))]
    options = {"max_staleness": 2, "version": "actor-004-abc"}
    trained = run(make_job(rows, batch_size=2, options=options), tmp_path)
    assert trained.rows == 3 and trained.facts["left_out"] == {"stale rows": 2}
    with pytest.raises(RunFailed, match="5 stale rows"):
        run(make_job([replace(row, adapter="base") for row in rows], options=options, output=str(tmp_path / "b")), tmp_path)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(make_job: MakeJob, tmp_path: Path) -> None:
    """Through torchrun with gloo: the loss of a step, its entropy and the weights are those of one process with the same batch, and so is
    the optimiser step on replayed rows that follows."""
    from agentloop.dataset.store import write_rows
    from agentloop.training.launch import train

    rows = policy_rows(7, seed=9)
    old = [replace(row, advantages=tuple(abs(a) for a in row.advantages or ()), reward=1.0) for row in policy_rows(5, seed=10)]
    write_rows(tmp_path / "old.parquet", old)
    replay = {"rows": [str(tmp_path / "old.parquet")], "group_means": [[0.0, 0.5]], "size": 4, "least": 1.0, "weight": 0.5}
    options = {"aggregate": "sequence", "kl": 0.1, "replay": replay}
    one = run(make_job(rows, method="grpo", batch_size=8, options=options, output=str(tmp_path / "one")), tmp_path)
    two = train(make_job(rows, method="grpo", batch_size=8, options=options, processes=2, output=str(tmp_path / "two")))
    assert (one.world_size, two.world_size) == (1, 2) and one.steps == two.steps == 2
    assert one.facts["replayed"] == two.facts["replayed"] == 4 and one.facts["replay_updates"] == 1
    assert two.loss_first == pytest.approx(one.loss_first, abs=1e-5) and two.loss_last == pytest.approx(one.loss_last, abs=1e-5)
    for name in ("entropy", "kl", "log_ratio"):
        assert two.facts[name] == pytest.approx(one.facts[name], abs=1e-5), name
