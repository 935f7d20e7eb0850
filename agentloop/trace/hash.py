"""Content hashes that mean the same thing everywhere: equal content, equal hash, whatever the layout on disk, the order of keys, or the
clock.

Left out are the fields that tell how a run went and not what it made: `seconds`, `cached_tokens`, and the traceback that only the first
failure of a kind carries. Whole numbers hash alike as 1 and 1.0, tuples alike to lists. All hashes are SHA-256, in hex.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from agentloop.trace.store import read_trees
from agentloop.trace.tree import Failure, Spent, Tree, Turn

UNTOLD: Mapping[type, frozenset[str]] = {
    Turn: frozenset({"seconds", "cached_tokens"}),
    Spent: frozenset({"cached"}),
    Failure: frozenset({"traceback"}),
}
"""Fields of our own types that are not content."""

TIMINGS = frozenset({"seconds", "cached_tokens"})
"""Keys of plain JSON objects that are not content, at any depth."""


def content_hash(value: Any, *, without: Iterable[str] = TIMINGS) -> str:
    """Hash of a tree, a row, any dataclass of JSON values, or JSON itself.

    Args:
        value: What to hash.
        without: Keys that are left out of mappings. Those of a dataclass' free-form fields (`info`, `task_data`) are content and stay.

    Raises:
        TypeError: A value is not JSON.
    """
    return hashlib.sha256(canonical(value, without=without).encode("utf-8", "surrogatepass")).hexdigest()


def canonical(value: Any, *, without: Iterable[str] = TIMINGS) -> str:
    """The one JSON text of a value: sorted keys, no white space, whole numbers without a point."""
    return json.dumps(_plain(value, frozenset(without)), sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def hash_of_many(values: Iterable[Any]) -> str:
    """Hash of a sequence (rows of a data set, say), order included, a value at a time."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(bytes.fromhex(content_hash(value)))
    return digest.hexdigest()


def trees_hash(trees: str | os.PathLike[str] | Iterable[Tree]) -> str:
    """Hash of a tree artifact, or of trees: independent of shards, of row groups, and of the order of the trees.

    Raises:
        UnreadableTrace: The artifact cannot be read.
    """
    source = read_trees(trees) if isinstance(trees, str | os.PathLike) else trees
    return hash_of_many(sorted([tree.id, content_hash(tree)] for tree in source))


def file_hash(path: str | os.PathLike[str]) -> str:
    """Hash of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(path: str | os.PathLike[str], *, names: Sequence[str] | None = None) -> str:
    """Hash of a folder: relative names and bytes of all its files, or of `names` alone.

    Raises:
        FileNotFoundError: The folder, or one of `names`, is not there.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}")
    files = [folder / name for name in names] if names is not None else [file for file in folder.rglob("*") if file.is_file()]
    return hash_of_many(sorted([file.relative_to(folder).as_posix(), file_hash(file)] for file in files))


def _plain(value: Any, without: frozenset[str]) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return _number(value)
        case Mapping():
            return {str(key): _plain(item, without) for key, item in value.items() if key not in without}
        case os.PathLike():
            return os.fspath(value)
        case list() | tuple():
            kinds = set(map(type, value))  # ids and log-probabilities are most of a tree
            if kinds <= {int, str}:
                return value
            return [_number(item) for item in value] if kinds == {float} else [_plain(item, without) for item in value]
        case set() | frozenset():
            return sorted((_plain(item, without) for item in value), key=lambda item: json.dumps(item, sort_keys=True))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        untold = UNTOLD.get(type(value), frozenset())
        fields = (field.name for field in dataclasses.fields(value) if field.init and field.name not in untold)
        return {name: _plain(getattr(value, name), frozenset()) for name in fields}
    raise TypeError(f"a {type(value).__name__} has no canonical form: {value!r}")


def _number(value: float) -> float | int:
    return int(value) if value.is_integer() and abs(value) < 2**53 else value
