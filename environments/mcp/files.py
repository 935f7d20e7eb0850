"""Questions and answers from a file of JSON lines, shared out between the splits by a hash of the question."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from agentloop import Task
from agentloop.environment.base import SPLITS, Split
from agentloop.errors import Mistake, nearest

TENTHS: tuple[Split, ...] = ("train",) * 8 + ("dev", "test")
"""Which split a question belongs to, by a digit of its hash."""


def read_questions(path: Path, question: str, answer: str) -> dict[Split, list[Task]]:
    """The tasks of each split. A row may say its `split`; else a hash of its question decides, so that a question is on one side only.

    Raises:
        Mistake: The file cannot be read, or a row lacks a field; it names the line.
    """
    path = path.expanduser()
    found: dict[Split, list[Task]] = {"train": [], "dev": [], "test": []}
    seen: set[str] = set()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"the questions cannot be read: {error}", expected="a .jsonl file, a question and its answer a line") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(path, number, line, (question, answer))
        text = str(row[question])
        digest = hashlib.sha256(text.encode()).hexdigest()
        split = row.get("split", TENTHS[int(digest, 16) % 10])
        if split not in SPLITS:
            raise Mistake(f"a question's split is {split!r}", file=str(path), line=number, expected="train, dev or test")
        if digest not in seen:  # asked twice, it is one task
            seen.add(digest)
            found[split].append(Task(f"{path.stem}-{digest[:12]}", {"question": text, "answer": str(row[answer])}))
    return found


def _row(path: Path, number: int, line: str, fields: tuple[str, ...]) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise Mistake(f"this line is no JSON: {error.msg}", file=str(path), line=number) from error
    if not isinstance(row, dict):
        raise Mistake("this line is no JSON object", file=str(path), line=number, found=row)
    for name in fields:
        if row.get(name) is None:
            expected = "one of " + ", ".join(row)
            raise Mistake(f"there is no field {name!r}", file=str(path), line=number, expected=expected, nearest=nearest(name, row))
    return row
