"""Any data set of questions and answers, from the hub or from files, by a few lines of YAML.

    environment: {id: questions, data: ./my_problems.jsonl, question: problem, answer: solution}

Options and the rule of the split are in docs/benchmarks.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from agentloop.environment.base import SPLITS, Split
from agentloop.environment.sandbox import Protection

from .data import FORMATS, Source
from .dialogue import Computing, Dialogue


class Questions(Dialogue):
    """Answer the questions of any data set, judged by mathematics."""

    def __init__(
        self,
        data: str,
        question: str = "question",
        answer: str | list[str] = "answer",
        solution: str = "",
        splits: dict[Split, str] | None = None,
        config: str = "",
        revision: str = "",
        prompt: str = "",
        attempts: int = 1,
        tool: Literal["none", "python"] = "none",
        programs: int = 4,
        unprotected: tuple[Protection, ...] = (),
    ) -> None:
        """Say where the questions are.

        Args:
            data: The path of a file, or of a folder with a file for each part, or an id on the hub.
            question: Field with the question, or a template of several: "{context} {question}".
            answer: Field with the answer, bare or at the end of a worked solution; or several, of which the first that is there counts.
            solution: Field with a worked solution, for worked examples.
            splits: Part of the data by split; splits that name the same part share it out. By default a file is shared out between all
                three, and elsewhere train is shared between train and dev, and test is test.
            config: Configuration of a data set on the hub.
            revision: Commit or tag on the hub.
            prompt: The system prompt; "" is that of the mathematical benchmarks, with or without a tool.
            attempts: Answers that may be given; after a wrong one, the environment says so.
            tool: "none", or "python" for programs that are run in a sandbox.
            programs: With a tool, messages with programs that are run in an episode.
            unprotected: Protections of the sandbox that this machine may lack.
        """
        fields = (answer,) if isinstance(answer, str) else tuple(answer)
        if not fields:
            raise ValueError("answer names no field")
        parts = splits if splits is not None else _usual_splits(data)
        source = Source(
            "questions",
            data,
            question,
            fields,
            solution,
            tuple((split, parts[split]) for split in SPLITS if split in parts),
            config or None,
            revision or None,
            given=True,
        )
        self._prompt = prompt
        super().__init__(source, attempts, Computing(tool, programs, unprotected))

    def system_prompt(self) -> str:
        return self._prompt or super().system_prompt()


def _usual_splits(data: str) -> dict[Split, str]:
    path = Path(data)
    if path.suffix in FORMATS:
        return dict.fromkeys(SPLITS, path.stem)
    return {"train": "train", "dev": "train", "test": "test"}
