"""Recipes of published methods, in a folder that has the files which they name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

METHODS = Path(__file__).parent / "methods"
NAMES = sorted(path.stem for path in METHODS.glob("*.yaml"))


@pytest.fixture
def methods(tmp_path: Path) -> Path:
    """A copy of the methods' recipes with a scoring model, environments and data of one's own beside them."""
    for path in METHODS.glob("*.yaml"):
        shutil.copy(path, tmp_path)
    (tmp_path / "scorer").mkdir()
    for name in ("redteam.py", "writing.py", "chat.jsonl", "seeds.jsonl", "expert.parquet"):
        (tmp_path / name).touch()
    return tmp_path
