"""QLoRA: the base in 4 bits while an adapter is trained, served on the base as it is; refused where bitsandbytes is not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agentloop.errors import Mistake
from agentloop.training.job import TrainingJob
from tests.training.random_rows import random_rows

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

MakeJob = Callable[..., TrainingJob]


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_an_adapter_is_trained_on_four_bits_and_plain_lora(make_job: MakeJob, tmp_path: Path) -> None:
    """The linear layers are in 4 bits, the loss falls, and the adapter goes on, and lowers the loss, on the base as it is."""
    import bitsandbytes

    from agentloop.training import sft

    rows = random_rows(8)
    job = make_job(rows, quantise="nf4", updates=20, batch_size=8)
    base = sft.load_base(job)
    kinds = {type(layer) for name, layer in base.named_modules() if name.endswith("_proj")}
    assert kinds == {bitsandbytes.nn.Linear4bit}
    (tmp_path / "work").mkdir()
    trained = sft.run(job, tmp_path / "work")
    assert trained.loss_last < trained.loss_first - 0.3
    whole = replace(job, quantise="none", updates=1, start=trained.adapter_path, output=str(tmp_path / "whole"))
    plain = replace(whole, start=None, output=str(tmp_path / "plain"))
    assert sft.run(whole, tmp_path / "work").loss_first < sft.run(plain, tmp_path / "work").loss_first - 0.2
    assert sorted(path.name for path in Path(trained.adapter_path).iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


def test_without_bitsandbytes_it_is_refused(make_job: MakeJob, monkeypatch: pytest.MonkeyPatch) -> None:
    from agentloop.training import sft

    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(Mistake, match="needs bitsandbytes, which is not installed; expected pip install bitsandbytes"):
        sft.load_base(make_job(random_rows(2), quantise="nf4"))
    with pytest.raises(Mistake, match="unknown quantisation of a training; found 'int3'"):
        sft.load_base(make_job(random_rows(2), quantise="int3"))
