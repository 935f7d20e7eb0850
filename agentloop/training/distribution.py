"""How a training is spread over processes: plain data parallelism, or one of accelerate's ways to divide the model too.

Each of these is a file in `configs`, as `accelerate config` writes them, with which accelerate's own launcher starts the processes; how
many is the job's. Importing this module imports neither torch nor accelerate.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Literal

from agentloop.errors import Mistake

Distribution = Literal["ddp", "fsdp2", "zero2", "zero3"]

NAMES: tuple[Distribution, ...] = ("ddp", "fsdp2", "zero2", "zero3")
"""Plain data parallelism (each process has the whole model), FSDP2, and DeepSpeed's ZeRO in stages 2 and 3."""

CONFIGS = Path(__file__).with_name("configs")


def config_of(name: Distribution) -> Path | None:
    """The configuration for accelerate's launcher; None for plain data parallelism, which needs none."""
    return None if name == "ddp" else CONFIGS / f"{name}.yaml"


def check(name: str, *, accelerators: bool | None = None) -> None:
    """Refuse what this machine cannot do, before anything is loaded.

    Args:
        name: One of `NAMES`.
        accelerators: Whether there are any; None looks.

    Raises:
        Mistake: There is no such way, it needs accelerators, or a package that is not here.
    """
    if name not in NAMES:
        raise Mistake("unknown distribution of a training", found=name, expected=f"one of {', '.join(NAMES)}")
    if name == "ddp":
        return
    if not (os.path.exists("/dev/nvidia0") if accelerators is None else accelerators):
        message = f"distribution {name!r} divides a model among NVIDIA accelerators, and there is none here"
        raise Mistake(message, expected="distribution: ddp")
    if name.startswith("zero") and importlib.util.find_spec("deepspeed") is None:
        raise Mistake(f"distribution {name!r} needs DeepSpeed, which is not installed", expected="pip install deepspeed, or fsdp2")
