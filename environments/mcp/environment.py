"""Questions that are answered with the tools of any MCP server, by a few lines of YAML.

    environment: {id: mcp, command: uvx mcp-server-time, data: ./questions.jsonl}

Options, and what an agent sees, are in docs/environments/mcp.md.
"""

from __future__ import annotations

import importlib.util
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from agentloop import StepResult, Task
from agentloop.environment.base import SPLITS, Split
from agentloop.environment.mcp_tools import McpEnvironment, McpServer

from .example import questions
from .files import read_questions

PROMPT = "Answer the question with the help of the tools. When you know the answer, write it and nothing else."


class Mcp(McpEnvironment):
    """Answer questions with the tools of an MCP server."""

    def __init__(
        self,
        command: str | list[str] = "",
        url: str = "",
        data: str = "",
        question: str = "question",
        answer: str = "answer",
        prompt: str = PROMPT,
        tools: list[str] | None = None,
        variables: dict[str, str] | None = None,
        timeout: Annotated[float, Field(gt=0)] = 30.0,
        restart: bool = True,
        turns: Annotated[int, Field(ge=1)] = 20,
    ) -> None:
        """Say where the server and the questions are. Without a server, a small shop's stock list stands in, with questions on it.

        Args:
            command: What starts the server, as typed in a shell, or its words.
            url: Or where it is reached, for example http://127.0.0.1:8000/mcp.
            data: A .jsonl file with a question and its answer a line.
            question: Field with the question.
            answer: Field with the answer.
            prompt: The system prompt; the tools follow.
            tools: Names of the tools that may be used; by default all.
            variables: Environment variables for the command; others than PATH, HOME and the like are not passed on.
            timeout: Longest call, in seconds.
            restart: Whether each episode has a new server (or session), so that none sees what another left.
            turns: Messages after which an episode is cut.
        """
        if importlib.util.find_spec("mcp") is None:
            raise ModuleNotFoundError("No module named 'mcp'", name="mcp")
        example = not (command or url)
        if example and data:
            raise ValueError("data needs a server to answer it with: say command or url")
        if not example and not data:
            raise ValueError("data is missing: a .jsonl file with a question and its answer a line")
        words = [sys.executable, str(Path(__file__).with_name("stock_list.py"))] if example else command
        super().__init__(McpServer(words, url, env=variables, tools=tools, timeout=timeout), restart=restart and not example)
        self._tasks = {split: questions(split) for split in SPLITS} if example else read_questions(Path(data), question, answer)
        self._prompt = prompt
        self._turns = turns
        self._answer: str | None = None
        self._left = 0

    def tasks(self, split: Split) -> Sequence[Task]:
        return self._tasks[split]

    def system_prompt(self) -> str:
        return f"{self._prompt}\n\n{self.tools_prompt()}"

    def reset(self, task: Task) -> str:
        super().reset(task)
        self._answer, self._left = str(task.data["answer"]), self._turns
        return str(task.data["question"])

    def step(self, action: str) -> StepResult:
        """Run the calls, or judge the answer; cut after `turns` messages."""
        if self._answer is None:
            raise RuntimeError("reset(task) comes before step(action)")
        result = super().step(action)
        assert isinstance(result, StepResult)
        self._left -= 1
        if self._left > 0 or result.done:
            return result
        return StepResult(result.observation, result.reward, result.done, True, result.info)

    def answer(self, text: str) -> StepResult:
        assert self._answer is not None
        return StepResult("", reward=float(same(text, self._answer)), done=True, info={"answer": text, "reference": self._answer})

    def demonstration(self, task: Task) -> list[str] | None:
        calls = task.data.get("calls")
        return None if calls is None else [self.call(one["name"], **one["arguments"]) for one in calls] + [str(task.data["answer"])]


def same(given: str, reference: str) -> bool:
    """Whether two answers are the same: equal as numbers, or in letters and digits, whatever the case, spaces and marks around them."""
    numbers = [_number(text) for text in (given, reference)]
    if None not in numbers:
        return numbers[0] == numbers[1]
    return _words(given) == _words(reference)


def _number(text: str) -> float | None:
    try:
        return float(text.strip().rstrip(".").replace(",", ""))
    except ValueError:
        return None


def _words(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(character if character.isalnum() else " " for character in plain)
    return " ".join(kept.split()) or plain.strip()
