"""A training on rounds that appear while it goes on: each is trained on like rows of any other, and a kill changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentloop.dataset.store import write_rows
from agentloop.errors import RunFailed, WaitedTooLong
from agentloop.training.exchange import Exchange, Round
from agentloop.training.job import Trained, TrainingJob
from agentloop.training.launch import train
from tests.training.policy_rows import policy_rows
from tests.training.test_sft import adapter_bytes

pytest.importorskip("trl")

MakeJob = Callable[..., TrainingJob]


@pytest.fixture
def make_online(make_job: MakeJob, tmp_path: Path) -> Callable[..., TrainingJob]:
    """A job whose rounds are in the exchange already: `counts` rows in each, with the options of their loss."""

    def make(counts: list[int], options: dict[str, Any] | None = None, rates: list[float] | None = None, **changes: Any) -> TrainingJob:
        exchange = Exchange(tmp_path / f"exchange-{len(list(tmp_path.iterdir()))}")
        policy = options or {}
        for number, count in enumerate(counts):
            exchange.place(number).mkdir(parents=True)
            path = exchange.place(number) / "rows.parquet"
            write_rows(path, policy_rows(count, seed=number))
            exchange.offer(Round(number, str(path) if count else None, policy))
        online = {
            "rounds": len(counts),
            "rates": rates or [1e-2] * len(counts),
            "wait": 60.0,
            "temperature": 1.0,
            "policy": policy,
            "compares": bool(policy.get("kl")),
        }
        job = make_job([], method="online", options=online, **changes)
        return replace(job, rows=(str(exchange.folder),))

    return make


def run(job: TrainingJob, tmp_path: Path) -> Trained:
    from agentloop.training import registry

    work = tmp_path / f"work-{Path(job.output).name}"
    work.mkdir(exist_ok=True)
    return registry.find(job.method)(job, work)


def assert_close(one: str, other: str) -> None:
    """That two adapters are the same but for rounding; a step moves a weight by 1e-2."""
    from safetensors.torch import load_file

    ours, theirs = (load_file(Path(path) / "adapter_model.safetensors") for path in (one, other))
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        assert (values - theirs[name]).abs().max().item() < 1e-4, name


@pytest.mark.parametrize("options", [{"loss": "clip_cov"}, {"kl": 0.3}, {"correction": 1.5, "aggregate": "constant"}], ids=str)
def test_one_round_is_a_training_on_its_rows(make_job: MakeJob, make_online: MakeJob, tmp_path: Path, options: dict[str, Any]) -> None:
    """But for the order in which TRL shuffles the rows of a batch, which floats notice."""
    changes: dict[str, Any] = {"epochs": 2, "batch_size": 4}
    alone = run(make_job(policy_rows(7), method="grpo", options=options, output=str(tmp_path / "alone"), **changes), tmp_path)
    online = run(make_online([7], options, output=str(tmp_path / "online"), **changes), tmp_path)
    assert_close(online.adapter_path, alone.adapter_path)
    for name in ("steps", "rows", "trained_tokens", "total_tokens"):
        assert getattr(online, name) == getattr(alone, name), name
    assert (online.loss_first, online.loss_last) == pytest.approx((alone.loss_first, alone.loss_last), abs=1e-5)
    assert online.facts["log_ratio"] == pytest.approx(alone.facts["log_ratio"], abs=1e-5) and online.facts["updates"] == 1


def test_rounds_go_on_from_each_other_and_each_has_its_rate(make_job: MakeJob, make_online: MakeJob, tmp_path: Path) -> None:
    """The adapter after a round is there for whoever plays; a round without rows, or at rate 0, changes nothing."""
    job = make_online([4, 0, 4, 4, 0], rates=[1e-2, 1e-2, 0.0, 2e-2, 1.0], output=str(tmp_path / "online"))
    trained = run(job, tmp_path)
    exchange = Exchange(Path(job.rows[0]))
    alone = run(make_job(policy_rows(4), method="grpo", output=str(tmp_path / "alone")), tmp_path)
    after = [adapter_bytes(str(exchange.adapter(number))) for number in range(1, 5)]
    assert_close(str(exchange.adapter(1)), alone.adapter_path)
    assert after[0] == after[1] == after[2] != after[3] == adapter_bytes(trained.adapter_path)
    assert trained.steps == 3 and trained.rows == 12
    with pytest.raises(RunFailed, match="no round of 2 had rows to train on"):
        run(make_online([0, 0], output=str(tmp_path / "nothing")), tmp_path)


def test_the_divergence_is_from_the_start_and_the_correction_from_the_round(make_online: MakeJob, tmp_path: Path) -> None:
    trained = run(make_online([4, 4], {"kl": 0.1, "correction": 2.0}, output=str(tmp_path / "both")), tmp_path)
    assert trained.facts["kl"]["first"] == pytest.approx(0.0, abs=1e-6) and trained.facts["kl"]["last"] > 1e-5
    assert trained.facts["clip_ratio/region_mean"]["last"] == 0.0, "one update a round: its ratios are all 1"


def test_a_round_that_does_not_come_is_named(tmp_path: Path) -> None:
    with pytest.raises(WaitedTooLong, match=r"waited 0\.1 s for round 7 of an online training"):
        Exchange(tmp_path).await_round(7, 0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("warm_training")
def test_a_killed_training_goes_on_in_the_round_that_it_was_in(make_online: MakeJob, tmp_path: Path) -> None:
    """SIGKILL in the third round or later: the same bytes in the end, and the same adapter after every round."""
    counts = [8] * 12
    changes: dict[str, Any] = {"dropout": 0.1, "batch_size": 4}
    whole = make_online(counts, {"kl": 0.1}, output=str(tmp_path / "whole"), **changes)
    expected = train(whole, work_dir=tmp_path / "work-whole")
    job, cancel = make_online(counts, {"kl": 0.1}, **changes), threading.Event()
    with pytest.raises(RunFailed, match="cancelled"):
        train(job, work_dir=tmp_path / "work", cancel=cancel, on_progress=lambda line: cancel.set() if line["step"] >= 5 else None)
    trained = train(job, work_dir=tmp_path / "work")
    assert trained.facts["resumed_at"] % 2 == 0 and 4 <= trained.facts["resumed_at"] < 24, "at the end of a round of two updates"
    assert adapter_bytes(trained.adapter_path) == adapter_bytes(expected.adapter_path)
    assert (trained.steps, trained.rows, trained.trained_tokens) == (24, 96, expected.trained_tokens)
    for number in range(1, len(counts)):
        one, other = (adapter_bytes(str(Exchange(Path(each.rows[0])).adapter(number))) for each in (job, whole))
        assert one == other, number


@pytest.mark.slow
@pytest.mark.usefixtures("warm_training")
def test_two_processes_train_on_a_round_as_one_does(make_online: MakeJob, tmp_path: Path) -> None:
    """Rounds of seven and three rows in batches of eight: the second has a process with fillers alone."""
    one = train(make_online([7, 3], {"kl": 0.1, "correction": 2.0}, batch_size=8, output=str(tmp_path / "one")))
    two = train(make_online([7, 3], {"kl": 0.1, "correction": 2.0}, batch_size=8, processes=2, output=str(tmp_path / "two")))
    assert (one.world_size, two.world_size) == (1, 2) and one.steps == two.steps == 2
    assert two.loss_first == pytest.approx(one.loss_first, abs=1e-5) and two.loss_last == pytest.approx(one.loss_last, abs=1e-5)
    for name in ("entropy", "kl", "log_ratio"):
        assert two.facts[name] == pytest.approx(one.facts[name], abs=1e-5), name
