"""New environments for `agentloop env new`: a working file of either kind and a test for it, to be changed into one's own."""

from __future__ import annotations

import keyword
from pathlib import Path

from agentloop.errors import Mistake

PLAIN = '''"""A number game; change it into your own. Try it with: agentloop env check ./{file}"""

import random

from agentloop import Environment, StepResult, Task


class {name}(Environment):
    """Find the secret number between 1 and 100. Answer with a number and nothing else."""

    def __init__(self, highest: int = 100):
        self.highest = highest

    def tasks(self, split):
        chance = random.Random(split)
        return [Task(f"{{split}}-{{n}}", {{"secret": chance.randint(1, self.highest)}}) for n in range(200)]

    def reset(self, task):
        self.secret = task.data["secret"]
        return "Guess the number."

    def step(self, action):
        if not action.strip().isdecimal():
            return StepResult("Answer with a number and nothing else.")
        if int(action) == self.secret:
            return StepResult("Right.", reward=1.0, done=True)
        return StepResult("Too low." if int(action) < self.secret else "Too high.")

    def demonstration(self, task):
        return [str(task.data["secret"])]
'''

TOOL = '''"""A shop to ask prices in; change it into your own. Try it with: agentloop env check ./{file}"""

import random

from agentloop import StepResult, Task, ToolEnvironment, tool


class {name}(ToolEnvironment):
    """Answer the question with a number and nothing else. Ask for prices first."""

    PRICES = {{"apple": 3, "pear": 4, "melon": 11}}

    def tasks(self, split):
        chance = random.Random(split)
        return [Task(f"{{split}}-{{n}}", {{"thing": chance.choice(sorted(self.PRICES)), "count": n + 2}}) for n in range(100)]

    def reset(self, task):
        self.total = self.PRICES[task.data["thing"]] * task.data["count"]
        return f"What do {{task.data['count']}} of the thing called {{task.data['thing']}} cost?"

    @tool
    def price(self, thing: str) -> int:
        """The price of one thing."""
        return self.PRICES[thing]

    def answer(self, text):
        return StepResult("", reward=float(text == str(self.total)), done=True)

    def demonstration(self, task):
        thing = task.data["thing"]
        return [self.call("price", thing=thing), str(self.PRICES[thing] * task.data["count"])]
'''

TEST = '''"""The environment keeps the protocol, and its own claims."""

import asyncio
from pathlib import Path

from agentloop.environment.check import check
from agentloop.environment.registry import find

FILE = str(Path(__file__).parent / "{file}")


def test_it_keeps_the_protocol():
    async def findings():
        return [finding async for finding in check(find(FILE), episodes=10)]

    failed = [finding for finding in asyncio.run(findings()) if finding.passed is False]
    assert not failed


def test_the_demonstration_is_rewarded():
    environment = find(FILE).make()
    task = environment.tasks("train")[0]
    environment.reset(task)
    results = [environment.step(action) for action in environment.demonstration(task)]
    assert results[-1].done
    assert environment.success(sum(result.reward for result in results))
'''


def scaffold(name: str, folder: Path, *, tool: bool) -> tuple[Path, Path]:
    """Write `NAME.py` and `test_NAME.py`; both paths.

    Raises:
        Mistake: The name cannot be a module's, or a file is there already.
    """
    name = name.removesuffix(".py").replace("-", "_")
    if not name.isidentifier() or keyword.iskeyword(name):
        raise Mistake("an environment's name becomes the name of its file", found=name, expected="letters, digits and underscores")
    files = (folder / f"{name}.py", folder / f"test_{name}.py")
    for path in files:
        if path.exists():
            raise Mistake(f"{path.name} is there already, and is not overwritten", file=str(path))
    words = {"file": files[0].name, "name": "".join(part.capitalize() for part in name.split("_"))}
    folder.mkdir(parents=True, exist_ok=True)
    for path, template in zip(files, (TOOL if tool else PLAIN, TEST), strict=True):
        path.write_text(template.format(**words), encoding="utf-8")
    return files
