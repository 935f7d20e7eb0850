"""A training that was killed goes on from its last whole checkpoint, and ends as one that was not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentloop.errors import RunFailed
from agentloop.training.checkpoint import MARK, last_checkpoint, remove_halves, step_of
from agentloop.training.job import TrainingJob
from agentloop.training.launch import train
from tests.training.policy_rows import policy_rows
from tests.training.random_rows import random_rows
from tests.training.test_sft import adapter_bytes

MakeJob = Callable[..., TrainingJob]

UPDATES = 40


def killed_after(job: TrainingJob, work: Path, step: int) -> None:
    """Launch a training and kill it, by SIGKILL, once its progress has come so far."""
    cancel = threading.Event()
    with pytest.raises(RunFailed, match="cancelled"):
        train(job, work_dir=work, cancel=cancel, on_progress=lambda record: cancel.set() if record["step"] >= step else None)


@pytest.mark.slow
@pytest.mark.usefixtures("warm_training")
@pytest.mark.parametrize(
    "method",
    [
        {"method": "sft", "dropout": 0.1, "gradient_accumulation": 2},
        {"method": "grpo", "dropout": 0.1, "options": {"loss": "clip_cov", "kl": 0.1, "covariance": {"low": -9.0, "share": 0.2}}},
    ],
    ids=["sft", "grpo"],
)
def test_a_killed_training_ends_as_one_that_was_not(make_job: MakeJob, tmp_path: Path, method: dict[str, Any]) -> None:
    """Weights byte by byte: order of the rows within an epoch, dropout, the optimiser, the rate and drawn tokens are all taken up again."""
    rows = (policy_rows if method["method"] == "grpo" else random_rows)(26)
    job = make_job(rows, updates=UPDATES, scheduler="cosine", checkpoint_every=4, **method)
    whole = train(replace(job, output=str(tmp_path / "whole")))
    work = tmp_path / "work"
    killed_after(job, work, 9)
    at = step_of(last_checkpoint(work / "trainer"))
    half = work / "trainer" / f"checkpoint-{UPDATES}"
    half.mkdir()
    trained = train(job, work_dir=work)
    assert 8 <= at < UPDATES and trained.facts["resumed_at"] == at, "not from the half that was never marked"
    assert adapter_bytes(trained.adapter_path) == adapter_bytes(whole.adapter_path)
    for name in ("steps", "loss_first", "loss_last", "trained_tokens"):
        assert getattr(trained, name) == getattr(whole, name), name
    assert len((work / "progress.jsonl").read_text().splitlines()) == UPDATES, "one line a step"
    assert not (work / "trainer").exists(), "what is finished needs no checkpoints"


def test_a_checkpoint_counts_once_it_is_marked(tmp_path: Path) -> None:
    for step, whole in ((90, True), (100, True), (110, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if whole:
            (tmp_path / f"checkpoint-{step}" / MARK).touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    remove_halves(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-100", "checkpoint-90"]
    assert last_checkpoint(tmp_path / "nothing") is None


def test_checkpoints_of_another_job_are_not_gone_on_from(make_job: MakeJob, tmp_path: Path) -> None:
    """The same work folder, but other rows behind the same path, or another rate: the training begins anew."""
    from agentloop.training import launch

    job = make_job(random_rows(3), content="rows of yesterday")
    folder = tmp_path / "work" / "trainer" / "checkpoint-8"
    for later, kept in ((job, True), (replace(job, content="rows of today"), False), (replace(job, learning_rate=1.0), False)):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).touch()
        (tmp_path / "work" / "job.json").write_text(job.to_json())
        launch._clear(tmp_path / "work", later)
        assert folder.exists() is kept
