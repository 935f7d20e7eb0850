"""The adapter: fresh or gone on from, always plain LoRA that vLLM can serve, saved so that equal weights are equal bytes everywhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from agentloop.errors import Mistake
from agentloop.training.job import TrainingJob

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


def attach_adapter(model: PreTrainedModel, job: TrainingJob) -> PeftModel:
    """The model with a trainable adapter in float32: `job.start`'s weights, or fresh ones (A random by `job.seed`, B zero: at first the
    base model's function).

    Raises:
        Mistake: `job.start` is no adapter, or another kind or shape of adapter than the job asks for.
    """
    if job.start is None:
        torch.manual_seed(job.seed)
        targets = job.target_modules if isinstance(job.target_modules, str) else list(job.target_modules)
        config = LoraConfig(
            r=job.rank, lora_alpha=_whole(job.alpha), lora_dropout=job.dropout, target_modules=targets, bias="none", task_type="CAUSAL_LM"
        )
        try:
            return get_peft_model(model, config)
        except ValueError as cause:
            raise Mistake(f"no layer of the model fits target_modules: {str(cause).splitlines()[0]}", found=job.target_modules) from cause
    config = _start_config(Path(job.start), job)
    return PeftModel.from_pretrained(model, job.start, is_trainable=True, config=config)


def _whole(number: float) -> float:
    """A whole number as an int, as adapter configurations have it."""
    return int(number) if number == int(number) else number


def _start_config(folder: Path, job: TrainingJob) -> LoraConfig:
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise Mistake("not an adapter to start from", file=str(folder), expected=f"a folder with {CONFIG} and {WEIGHTS}")
    config = LoraConfig.from_pretrained(str(folder))
    if config.use_dora or config.modules_to_save or config.bias != "none":
        raise Mistake("cannot start from this adapter: vLLM serves plain LoRA only (no DoRA, saved modules or biases)", file=str(folder))
    for name, found, asked in (("rank", config.r, job.rank), ("alpha", config.lora_alpha, job.alpha)):
        if found != asked:
            raise Mistake(f"the adapter to start from has another {name}", file=str(folder), found=found, expected=f"the job's {asked}")
    config.lora_dropout = job.dropout
    config.inference_mode = False
    return config


def partial_of(output: Path) -> Path:
    """Where an adapter is written before it appears at `output`."""
    return output.with_name(f".{output.name}.partial")


def write_adapter(model: PeftModel, folder: Path, weights: dict[str, torch.Tensor] | None = None) -> None:
    """Write the trained adapter, and no other, as peft does; `weights` are the whole model's where they were gathered from several
    processes.
    """
    model.save_pretrained(
        str(folder), state_dict=weights, safe_serialization=True, save_embedding_layers=False, selected_adapters=["default"]
    )


def seal_adapter(output: Path, model_name: str) -> None:
    """Let what was written to `partial_of(output)` appear at `output`, by a rename, once it is on disk.

    The configuration has sorted keys and lists and no paths (peft writes sets in the order of the process' string hashes, and the base
    model's folder), so that the same training gives the same bytes on two machines.
    """
    partial = partial_of(output)
    try:
        for entry in partial.iterdir():
            if entry.name not in (CONFIG, WEIGHTS):
                entry.unlink()
        config = json.loads((partial / CONFIG).read_text())
        config["base_model_name_or_path"] = model_name
        config["inference_mode"] = True
        (partial / CONFIG).write_text(json.dumps(_canonical(config), indent=2, sort_keys=True) + "\n")
        for entry in partial.iterdir():
            with entry.open("rb") as file:
                os.fsync(file.fileno())
        os.rename(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _canonical(config: dict[str, Any]) -> dict[str, Any]:
    return {
        key: sorted(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value for key, value in config.items()
    }
