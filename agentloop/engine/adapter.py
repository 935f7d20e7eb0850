"""Versions of adapters: what names them, and what of them an engine can serve.

A version's name contains a hash of what the adapter computes, its configuration without paths and its tensors, so that two trainings
which give the same weights give the same version wherever they lie, and new weights can never appear under an old name. Nothing here
imports torch: a dry run calls it.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO

from agentloop.engine.base import AdapterVersion, Engine
from agentloop.errors import Mistake

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"

NOT_HASHED = frozenset({"base_model_name_or_path", "revision", "auto_mapping", "peft_version", "inference_mode", "parent_library"})
"""Keys of the configuration that say where or when an adapter was made and not what it computes."""

CHUNK = 1 << 20


def adapter_version(path: Path, role: str, iteration: int | str) -> AdapterVersion:
    """The version that the adapter in `path` is.

    Args:
        path: Folder with `adapter_config.json` and `adapter_model.safetensors`.
        role: Role that it belongs to.
        iteration: Iteration that made it; a number is written with three digits.

    Raises:
        Mistake: The folder holds no adapter, or a damaged one.
    """
    digest = content_hash(path)
    label = f"{iteration:03d}" if isinstance(iteration, int) else iteration
    return AdapterVersion(name=f"{role}-{label}-{digest[:12]}", path=path.resolve(), content_hash=digest)


def content_hash(path: Path) -> str:
    """SHA-256, in hex, of an adapter's configuration without paths and of its tensors in the order of their names."""
    digest = hashlib.sha256()
    config = {key: _canonical(value) for key, value in read_config(path).items() if key not in NOT_HASHED}
    digest.update(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())
    weights = path / WEIGHTS_NAME
    try:
        with weights.open("rb") as file:
            for name, (header, begin, end) in sorted(_tensors(file).items()):
                digest.update(f"\n{name}\t{header}\n".encode())
                _hash_range(digest, file, begin, end)
    except FileNotFoundError:
        raise Mistake("the adapter has no weights", found=str(path), expected=f"{WEIGHTS_NAME} in it") from None
    except (ValueError, KeyError, struct.error) as error:
        raise Mistake(f"the adapter's weights are damaged ({error})", file=str(weights)) from error
    return digest.hexdigest()


def read_config(path: Path) -> dict[str, Any]:
    """`adapter_config.json` of the adapter in `path`. Raises `Mistake`."""
    config_path = path / CONFIG_NAME
    try:
        config = json.loads(config_path.read_text())
    except FileNotFoundError:
        raise Mistake("not an adapter folder", found=str(path), expected=f"a folder with {CONFIG_NAME} and {WEIGHTS_NAME}") from None
    except ValueError as error:
        raise Mistake(f"the adapter's configuration is damaged ({error})", file=str(config_path)) from error
    if not isinstance(config, dict):
        raise Mistake("the adapter's configuration is damaged", file=str(config_path), found=config, expected="a mapping")
    return config


def check_servable(path: Path, *, max_rank: int) -> None:
    """Refuse an adapter that vLLM cannot serve, or would serve wrongly.

    Raises:
        Mistake: Names what cannot be served. `rank_pattern` and `alpha_pattern` are refused because vLLM ignores them without a word and
            scales wrongly.
    """
    config = read_config(path)
    check_plan(
        rank=int(config.get("r") or 0),
        max_rank=max_rank,
        method=str(config.get("peft_type", "LORA")),
        dora=bool(config.get("use_dora")),
        saved_modules=config.get("modules_to_save") or (),
        bias=str(config.get("bias") or "none"),
        file=str(path / CONFIG_NAME),
    )
    for key in ("rank_pattern", "alpha_pattern", "layer_replication", "target_parameters", "trainable_token_indices", "lora_bias"):
        if config.get(key):
            raise Mistake(f"vLLM cannot serve an adapter with {key}", file=str(path / CONFIG_NAME), found=config[key], expected="none")


def check_plan(
    *,
    rank: int,
    max_rank: int,
    method: str = "LORA",
    dora: bool = False,
    saved_modules: Collection[str] = (),
    bias: str = "none",
    file: str | None = None,
) -> None:
    """Refuse an adapter before it is trained, from what a recipe says of it; `agentloop run --dry-run` calls this.

    Raises:
        Mistake: vLLM cannot serve such an adapter.
    """
    if method != "LORA":
        raise Mistake("vLLM serves LoRA adapters only", file=file, found=method, expected="LORA")
    if not 1 <= rank <= max_rank:
        raise Mistake("the adapter's rank cannot be served", file=file, found=rank, expected=f"1 to {max_rank} (engine.max_lora_rank)")
    if dora:
        raise Mistake("vLLM cannot serve DoRA adapters", file=file, found="use_dora", expected="plain LoRA")
    if saved_modules:
        raise Mistake("vLLM cannot serve an adapter with extra saved modules", file=file, found=sorted(saved_modules), expected="none")
    if bias != "none":
        raise Mistake("vLLM cannot serve an adapter with biases", file=file, found=bias, expected="none")


async def serve_version(engine: Engine, version: AdapterVersion, *, keep: Collection[str] = ()) -> tuple[str, ...]:
    """Load a new version of a role's adapter and unload that role's others, but for those in `keep`.

    The old ones leave first, each when the last request that uses it has ended, so that a role never needs more than its two places.

    Returns:
        Names that were unloaded.
    """
    role = role_of(version.name)
    old = tuple(name for name in await engine.adapters() if role_of(name) == role and name != version.name and name not in keep)
    for name in old:
        await engine.unload_adapter(name)
    await engine.load_adapter(version)
    return old


def role_of(name: str) -> str:
    """The role in a versioned name, "critic" of "critic-002-1f0c..."."""
    return name.rsplit("-", 2)[0]


def _canonical(value: Any) -> Any:
    """Lists sorted: PEFT keeps target modules as a set and writes them in any order."""
    if isinstance(value, list):
        return sorted((_canonical(item) for item in value), key=repr)
    return value


def _tensors(file: BinaryIO) -> dict[str, tuple[str, int, int]]:
    """Type and shape, begin and end in the file, of each tensor; from the header of the safetensors format."""
    (length,) = struct.unpack("<Q", file.read(8))
    if length > 100 << 20:
        raise ValueError("the header is too long")
    header = json.loads(file.read(length))
    start = 8 + length
    return {
        name: (f"{tensor['dtype']}{tensor['shape']}", start + tensor["data_offsets"][0], start + tensor["data_offsets"][1])
        for name, tensor in header.items()
        if name != "__metadata__"
    }


def _hash_range(digest: Any, file: BinaryIO, begin: int, end: int) -> None:
    file.seek(begin)
    left = end - begin
    while left:
        chunk = file.read(min(CHUNK, left))
        if not chunk:
            raise ValueError("the file is shorter than its header says")
        digest.update(chunk)
        left -= len(chunk)
