"""A training job goes through JSON unchanged, and one that cannot be done is refused when it is made."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agentloop.errors import Mistake
from agentloop.training import registry
from agentloop.training.job import Trained, TrainingJob


def job(**changes: object) -> TrainingJob:
    return TrainingJob(**{"model": "m", "rows": ("a", "b"), "output": "o", **changes})  # type: ignore[arg-type]


def test_a_job_and_its_result_go_through_json_unchanged():
    asked = job(start="adapter", target_modules=("q_proj", "v_proj"), options={"beta": 0.1}, max_rows=7, batch_size=6, processes=3)
    assert TrainingJob.from_json(asked.to_json()) == asked
    assert TrainingJob.from_json(job().to_json()) == job()
    done = Trained("adapter", 3, 10, 1, 100, 400, 480, 2.5, 0.5, 1.0, 9.0, 1)
    assert Trained.from_json(done.to_json()) == done


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "rank of a training must be at least 1; found 0"),
        ({"epochs": 0}, "epochs of a training must be more than 0"),
        ({"rows": ()}, "needs rows"),
        ({"learning_rate": 0.0}, "learning_rate of a training must be more than 0"),
        ({"dropout": 1.0}, "dropout of a training must be a share below 1"),
        ({"warmup": 2.0}, "warmup of a training must be a share below 1"),
        (
            {"batch_size": 8, "processes": 3},
            "a batch cannot be cut into 3 processes x 1 pieces; found 'batch_size 8'; expected a multiple of 3",
        ),
        ({"batch_size": 8, "processes": 2, "gradient_accumulation": 8}, "expected a multiple of 16"),
    ],
)
def test_senseless_jobs_are_refused(changes: dict[str, object], message: str):
    with pytest.raises(Mistake) as refused:
        job(**changes)
    assert message in str(refused.value)


def test_an_unknown_key_in_a_job_is_named():
    with pytest.raises(Mistake, match="did you mean 'epochs'"):
        TrainingJob.from_json('{"model": "m", "rows": ["a"], "output": "o", "epoch": 2}')


def test_methods_are_known_by_name():
    assert "sft" in registry.names()
    with pytest.raises(Mistake, match="unknown training method 'sftt'; expected one of .*; did you mean 'sft'"):
        registry.check("sftt")


def test_launching_imports_no_torch():
    modules = "agentloop.training.launch, agentloop.training.registry, agentloop.dataset.store, agentloop.dataset.registry"
    code = f"import sys, {modules}; print([m for m in ('torch', 'transformers', 'trl', 'peft') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
