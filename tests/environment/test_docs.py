"""The environments in docs/environments.md are as short as they claim, run as they are written, and keep the protocol."""

import asyncio
import re
import sys
from pathlib import Path

import pytest

from agentloop.environment.check import Finding, check
from agentloop.environment.registry import find

PAGE = (Path(__file__).parents[2] / "docs" / "environments.md").read_text(encoding="utf-8")


def write_example(name: str, folder: Path) -> Path:
    """The first code block below the heading that ends in the file's name."""
    section = PAGE.split(f": {name}\n", 1)[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    path = folder / name
    path.write_text(block.group(1))
    return path


def findings_of(path: Path) -> dict[str, Finding]:
    async def collect() -> list[Finding]:
        return [finding async for finding in check(find(str(path)), episodes=10)]

    return {finding.name: finding for finding in asyncio.run(collect())}


@pytest.mark.parametrize(("name", "most_lines"), [("guess.py", 30), ("sums.py", 20)])
def test_the_examples_are_short_and_keep_the_protocol(tmp_path: Path, name: str, most_lines: int) -> None:
    path = write_example(name, tmp_path)
    assert len(path.read_text().splitlines()) < most_lines
    found = findings_of(path)
    assert [finding for finding in found.values() if finding.passed is False] == []
    assert found["tasks"].passed is True


def test_the_number_game_can_be_won(tmp_path: Path) -> None:
    game = find(str(write_example("guess.py", tmp_path))).make(highest=10)
    task = game.tasks("dev")[0]
    assert game.reset(task) == "Guess the number."
    rewards = [game.step(str(number)).reward for number in range(1, task.data["secret"] + 1)]
    assert rewards == [0.0] * (task.data["secret"] - 1) + [1.0]


def test_the_sums_are_worked_out_with_the_tool_and_show_the_prompt_of_the_page(tmp_path: Path) -> None:
    sums = find(str(write_example("sums.py", tmp_path))).make()
    assert f"```text\n{sums.system_prompt()}\n```" in PAGE
    task = sums.tasks("train")[0]
    assert sums.reset(task) == "What is 100 + 700?"
    assert sums.step("add(100, 700)").observation == "800"
    assert sums.step("801").reward == 0.0
    assert sums.step("800").reward == 1.0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the sandbox is refused")
def test_the_powers_are_computed_in_the_sandbox(tmp_path: Path) -> None:
    powers = find(str(write_example("powers.py", tmp_path))).make()
    try:
        task = powers.tasks("train")[0]
        assert powers.reset(task) == "What are the last three digits of 7 to the power of 10?"
        assert powers.step('python("power = pow(7, 10, 1000)\\nprint(power)")').observation == "249"
        assert powers.step("249").reward == 1.0
    finally:
        powers.close()


def test_the_tables_of_the_page_are_complete() -> None:
    from agentloop.environment.check import CLAIMS

    for name, _, _ in CLAIMS:
        assert f"\n| {name} |" in PAGE
