"""Everything that decides the numbers of one `agentloop eval`, kept beside them, so that a folder never mixes two evaluations."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agentloop.environment.base import Split
from agentloop.errors import Mistake
from agentloop.sampling.settings import Overflow, SampleSettings


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is evaluated, on what, and how. Two evaluations with equal configurations are one evaluation.

    Attributes:
        benchmark: Id of the environment, or the absolute path of its file.
        benchmark_hash: SHA-256 of the environment's code; "" where it comes with an installed package.
        split: The split that is played.
        options: Options of the environment.
        limit: Tasks of the split; None is all of them.
        examples: Worked examples in the prompt.
        model: The model as it was named.
        adapter: Content hash of the adapter; None is the bare base.
        compare_to: "base" where the base is measured beside the adapter.
        engine: Kind of engine.
        engine_options: What else was said of it.
        seed: Seed of the evaluation.
        samples: Episodes of each task.
        temperature: Sampling temperature; 0 is greedy.
        top_p: Nucleus truncation; 1.0 means none.
        top_k: Truncation to the k likeliest tokens; 0 means none.
        max_tokens: Most ids of a turn.
        max_turns: Most turns of an episode.
        overflow: What happens when the context is full.
    """

    benchmark: str
    model: str
    benchmark_hash: str = ""
    split: Split = "test"
    options: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    examples: int = 0
    adapter: str | None = None
    compare_to: str | None = None
    engine: str = "auto"
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 256
    max_turns: int = 16
    overflow: Overflow = "stop"

    def to_json(self) -> dict[str, Any]:
        """A JSON value."""
        value: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return value

    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that stand for the whole."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def folder(self) -> Path:
        """Where results go unless the user says otherwise: another configuration, another folder."""
        parts = [Path(self.benchmark).stem, self.split, Path(self.model).name]
        parts += [] if self.adapter is None else [self.adapter[:8]]
        return Path("evaluations") / "-".join([re.sub(r"[^\w.-]+", "_", part) for part in parts] + [self.fingerprint()[:8]])

    def sample_settings(self, *, concurrency: int, max_failures: float) -> SampleSettings:
        """How its episodes are played; neither argument changes what is measured."""
        return SampleSettings(
            samples=self.samples,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            max_tokens=self.max_tokens,
            max_turns=self.max_turns,
            overflow=self.overflow,
            concurrency=concurrency,
            max_failures=max_failures,
        )


def check_same(configuration: Configuration, kept: Mapping[str, Any], folder: Path) -> None:
    """Raise `Mistake` unless `kept`, read from `folder`, is this configuration; the message names what differs."""
    asked = configuration.to_json()
    different = [name for name in sorted({*asked, *kept}) if asked.get(name) != kept.get(name)]
    if different:
        told = "; ".join(f"{name} was {kept.get(name)!r} and is now {asked.get(name)!r}" for name in different)
        raise Mistake(f"this folder holds another evaluation: {told}", file=str(folder), expected="the same command, or another --out")
