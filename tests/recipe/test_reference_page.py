"""`docs/recipes.md`: the tables are current, and what it shows works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentloop.recipe import load
from agentloop.recipe.reference_page import HOME, page

TEXT = HOME.read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)


def test_the_tables_are_current() -> None:
    assert page(TEXT) == TEXT, "run `python -m agentloop.recipe.reference_page`"


def test_the_first_recipe_can_be_run(tmp_path: Path) -> None:
    path = tmp_path / "first.yaml"
    path.write_text(BLOCKS[0])
    assert load(path, environments={"calculator"}).name == "first"


@pytest.mark.parametrize("block", BLOCKS[1:])
def test_every_piece_is_in_the_language(block: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch()
    (tmp_path / "mine.yaml").write_text(block)
    (tmp_path / "r.yaml").write_text(whole(block))
    load(tmp_path / "r.yaml", allow_unavailable=True)


def whole(block: str) -> str:
    """A recipe around a piece of one. A list is worked examples; what has no stages shows settings of some."""
    if block.startswith("- "):
        return whole("roles: {}\nprompt: {examples: ./mine.yaml}\n")
    if block.startswith("roles:"):
        return f"name: piece\nmodel: tiny\nenvironment: calculator\nstages: [{{sample: {{}}}}]\n{block}"
    if "stages:" in block:
        return f"name: piece\nmodel: tiny\nenvironment: calculator\n{block}"
    numbers: dict[str, Any] = {line.split(":", 1)[0]: line.split(":", 1)[1].split("#")[0] for line in block.splitlines()}
    return (
        "name: piece\nmodel: tiny\nenvironment: calculator\niterations: 3\nstages:\n"
        "  - tune:\n      choose: {from: probe_dev, metric: success}\n      stages:\n"
        f"        - sample: {{id: probe, top_p: {{grid: [0.9, 1.0]}}, temperature: {numbers['temperature']}}}\n"
        f"        - build: {{id: rows, from: probe, dataset: self_imitation, min_reward: {numbers['min_reward']}}}\n"
        "        - evaluate: {id: probe_dev}\n"
        f"  - sample: {{top_p: {numbers['top_p']}}}\n"
        f"  - train: {{from: rows, learning_rate: {numbers['learning_rate']}}}\n"
    )


def test_no_setting_is_left_out() -> None:
    keys = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))
    assert {"learning_rate", "min_reward", "start_from", "url", "gpu_memory_utilization", "choose", "outputs", "clip_high"} <= keys
    assert yaml.safe_load(BLOCKS[0])["stages"]
