"""What divides the model among processes: the shipped configurations, read by accelerate itself, and FSDP2 where a test can run it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agentloop.errors import Mistake, RunFailed
from agentloop.training import distribution, launch
from agentloop.training.checkpoint import last_checkpoint
from agentloop.training.job import TrainingJob
from agentloop.training.launch import command, train
from tests.training.policy_rows import policy_rows
from tests.training.random_rows import random_rows

MakeJob = Callable[..., TrainingJob]

SHIPPED = [path.stem for path in sorted(distribution.CONFIGS.glob("*.yaml"))]


def launched(name: str) -> Any:
    """The arguments of accelerate's launcher, defaults and configuration read by its own code."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    words = command(TrainingJob(model="m", rows=("r",), output="o", processes=4, distribution=name, batch_size=8), Path("work"))  # type: ignore[arg-type]  # a name of NAMES
    at = words.index("accelerate.commands.launch")
    parsed = launch_command_parser().parse_args(words[at + 1 :])
    return _validate_launch_command(parsed)[0]


def test_every_way_has_its_configuration() -> None:
    assert {"ddp", *SHIPPED} == set(distribution.NAMES)


@pytest.mark.parametrize("name", SHIPPED)
def test_accelerate_takes_the_shipped_configurations_as_they_are_meant(name: str) -> None:
    arguments = launched(name)
    assert arguments.num_processes == 4 and arguments.mixed_precision == "no", "the job says how many, and of what type weights are"
    assert arguments.training_script == "agentloop.training.worker" and arguments.module
    assert arguments.use_fsdp is (name == "fsdp2") and arguments.use_deepspeed is name.startswith("zero")
    if name == "fsdp2":
        assert int(arguments.fsdp_version) == 2 and arguments.fsdp_state_dict_type == "FULL_STATE_DICT"
    else:
        assert arguments.zero_stage == int(name[-1]) and arguments.offload_optimizer_device == "none"
        assert name != "zero3" or str(arguments.zero3_save_16bit_model).lower() == "true", "an adapter is gathered before it is written"


@pytest.mark.parametrize(
    ("name", "accelerators", "message"),
    [
        ("fsdp2", False, "divides a model among NVIDIA accelerators, and there is none here; expected distribution: ddp"),
        ("zero3", True, "needs DeepSpeed, which is not installed; expected pip install deepspeed"),
        ("zero1", True, "unknown distribution of a training; found 'zero1'"),
    ],
)
def test_what_a_machine_cannot_do_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, name: str, accelerators: bool, message: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Mistake, match=message):
        distribution.check(name, accelerators=accelerators)
    distribution.check("ddp", accelerators=False)


@pytest.fixture
def fsdp_on_processors(warm_training: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings say `fsdp2` here: with the environment that accelerate's launcher makes of the shipped configuration."""
    from accelerate.utils.launch import prepare_multi_gpu_env

    made = prepare_multi_gpu_env(launched("fsdp2"))
    shipped = {key: value for key, value in made.items() if key.startswith("FSDP_") or key == "ACCELERATE_USE_FSDP"}
    assert shipped["FSDP_VERSION"] == "2"
    usual = launch.environment

    def environment(job: TrainingJob) -> Mapping[str, str]:
        return {**usual(job), **(shipped if job.distribution == "fsdp2" else {})}

    monkeypatch.setattr(launch, "environment", environment)
    monkeypatch.setattr(distribution, "check", lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_model_that_is_divided_among_two_processes_learns_what_one_does(
    make_job: MakeJob, tmp_path: Path, fsdp_on_processors: None, method: str
) -> None:
    """Every parameter is divided, the adapter is gathered, and a training that was killed goes on from its checkpoint."""
    from safetensors.torch import load_file

    rows = policy_rows(7) if method == "grpo" else random_rows(7)
    job = make_job(rows, method=method, batch_size=8, updates=12, checkpoint_every=3, learning_rate=1e-3)
    one = train(replace(job, output=str(tmp_path / "one")))
    divided, work, cancel = replace(job, processes=2, distribution="fsdp2"), tmp_path / "work", threading.Event()
    with pytest.raises(RunFailed, match="cancelled"):
        train(divided, work_dir=work, cancel=cancel, on_progress=lambda line: cancel.set() if line["step"] >= 4 else None)
    assert last_checkpoint(work / "trainer") is not None
    two = train(divided, work_dir=work)
    assert two.world_size == 2 and two.facts["divided"] > 0 and two.facts["resumed_at"] >= 3
    assert (two.loss_first, two.loss_last) == pytest.approx((one.loss_first, one.loss_last), abs=1e-4)
    ours, theirs = (load_file(Path(found.adapter_path) / "adapter_model.safetensors") for found in (one, two))
    assert ours.keys() == theirs.keys()
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-3
