"""Questions and answers from the hub or from files, in a frozen split in which no question is in two parts.

Data sets are read by the library `datasets` when they are first asked for, once a process. Where ours and the data's splits are not the
same, those of ours that name one part of the data share it out by a hash of the question alone, so that the same question is always on the
same side, whatever its place in the file. A question of the test split is never in dev or train, nor one of dev in train, though the data
may have it twice: questions are compared by their letters and digits only.
"""

from __future__ import annotations

import hashlib
import os
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from agentloop import Task
from agentloop.environment.base import Split
from agentloop.errors import Mistake, nearest
from agentloop.evaluation.math import final_answer

DATA_FOLDER = "AGENTLOOP_DATA"
"""Environment variable: a folder with data sets, one folder each, that come before the hub."""

FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
"""What is read, and by which builder of `datasets`."""

SHARES: dict[Split, float] = {"train": 0.8, "dev": 0.1, "test": 0.1}
"""How splits that name one part of the data share it out, in proportion to these numbers."""

_ORDER: tuple[Split, ...] = ("test", "dev", "train")
"""Who keeps a question that the data has twice."""

_loading = threading.Lock()


@dataclass(frozen=True)
class Source:
    """Where questions come from, and how to read them.

    Attributes:
        name: The benchmark, for messages, and the name of its folder in `AGENTLOOP_DATA`.
        data: Id on the hub, or the path of a file or of a folder with a file for each part (`train.jsonl`, `test.parquet`).
        question: Field with the question, or a template of several (`"{Body} {Question}"`).
        answer: Fields with the answer; the first that a row has. A worked solution is fine, if it ends in `#### 18` or a box.
        solution: Field with a worked solution, for worked examples; "" where `answer` may hold one or there is none.
        splits: Part of the data by split; one that is left out has no tasks.
        config: Configuration of the data set on the hub.
        revision: Commit or tag on the hub.
    """

    name: str
    data: str
    question: str = "question"
    answer: tuple[str, ...] = ("answer",)
    solution: str = ""
    splits: tuple[tuple[Split, str], ...] = (("train", "train"), ("dev", "train"), ("test", "test"))
    config: str | None = None
    revision: str | None = None
    given: bool = field(default=False)

    def path(self) -> Path | None:
        """The file or folder it is read from; None where that is the hub. Raises `Mistake` for a path that is not there."""
        folder = os.environ.get(DATA_FOLDER, "")
        if not self.given and folder and (Path(folder).expanduser() / self.name).exists():
            return Path(folder).expanduser() / self.name
        path = Path(self.data).expanduser()
        if path.exists():
            return path
        if self.data.startswith((".", "/", "~")) or path.suffix in FORMATS or self.data.count("/") > 1:
            beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
            raise Mistake(
                f"there is no data of benchmark {self.name!r} at {str(path.absolute())!r}",
                expected="a file or a folder of .jsonl, .json, .csv or .parquet files, or an id on the hub such as openai/gsm8k",
                nearest=nearest(path.name, beside),
            )
        return None


@lru_cache(maxsize=16)
def _all_tasks(source: Source, files: tuple[tuple[Path, int], ...]) -> Mapping[Split, tuple[Task, ...]]:
    parts = {part: tuple(_rows(source, part)) for part in dict.fromkeys(part for _, part in source.splits)}
    sharing = {part: [split for split, other in source.splits if other == part] for part in parts}
    found: dict[Split, tuple[Task, ...]] = {"train": (), "dev": (), "test": ()}
    taken: set[str] = set()
    wanted = dict(source.splits)
    for split in _ORDER:
        if split not in wanted:
            continue
        part = wanted[split]
        own = [(key, task) for key, task in parts[part] if _side(key, sharing[part]) == split]
        if split != "test":  # a benchmark keeps its size; what is learnt from needs each question once
            own = list({key: (key, task) for key, task in reversed(own) if key not in taken}.values())[::-1]
        found[split] = tuple(task for _, task in own)
        taken |= {key for key, _ in own}
    return found


def tasks(source: Source, split: Split) -> Sequence[Task]:
    """The tasks of a split, in the order of the data. Raises `Mistake` if the data cannot be had or read."""
    with _loading:  # every instance asks from a thread of its own
        return _all_tasks(source, _stamps(source))[split]


def _stamps(source: Source) -> tuple[tuple[Path, int], ...]:
    """The files that are read, each with its time of change in nanoseconds; none for the hub. What was read of others is no answer."""
    path = source.path()
    if path is None:
        return ()
    parts = dict.fromkeys(part for _, part in source.splits)
    return tuple((file, file.stat().st_mtime_ns) for part in parts for file in _files(path, part))


def key_of(question: str) -> str:
    """What makes a question the same question: its letters and digits."""
    plain = unicodedata.normalize("NFKC", question).casefold()
    return "".join(character for character in plain if character.isalnum())


def _side(key: str, splits: Sequence[Split]) -> Split:
    """Which of the splits that share a part a question belongs to."""
    place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64 * sum(SHARES[split] for split in splits)
    for split in splits:
        place -= SHARES[split]
        if place < 0:
            return split
    return splits[-1]


def _rows(source: Source, part: str) -> Iterator[tuple[str, Task]]:
    """(key, task) for each row of a part."""
    for index, row in enumerate(_load(source, part)):
        question = _text(source, part, row, (source.question,)).strip()
        answer = _text(source, part, row, source.answer).strip()
        worked = "####" in answer or "\\boxed" in answer
        solution = str(row.get(source.solution) or "") if source.solution else answer if worked else ""
        reference = final_answer(answer) if worked else answer
        if not question or not reference:
            raise Mistake(
                f"benchmark {source.name!r}: row {index} of {part!r} has no {'question' if reference else 'final answer'}", found=row
            )
        yield key_of(question), Task(f"{part}-{index}", {"question": question, "answer": reference, "solution": solution})


def _text(source: Source, part: str, row: Mapping[str, Any], fields: Sequence[str]) -> str:
    """The first of the fields that the row has, as text; a whole number without a point."""
    for name in fields:
        if "{" in name:
            try:
                return name.format(**row)
            except (KeyError, IndexError, ValueError) as error:
                raise _no_field(source, part, row, str(error).strip("'")) from error
        value = row.get(name)
        if value is not None:
            return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    raise _no_field(source, part, row, fields[0])


def _no_field(source: Source, part: str, row: Mapping[str, Any], name: str) -> Mistake:
    where = source.path() or source.data
    return Mistake(
        f"benchmark {source.name!r}: {str(where)!r} has no field {name!r} in {part!r}",
        expected=f"one of {', '.join(row)}, named by the options question and answer",
        nearest=nearest(name, row),
    )


def _load(source: Source, part: str) -> Any:
    """The rows of a part; nothing where a folder has no such file. Raises `Mistake`."""
    import datasets

    path = source.path()
    if path is None:
        try:
            return datasets.load_dataset(source.data, source.config, split=part, revision=source.revision)
        except Exception as error:
            raise _not_loaded(source, part, error) from error
    files = _files(path, part)
    if not files:
        _check_parts(source, path)
        return ()
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(FORMATS[files[0].suffix], data_files=[str(file) for file in files], split="train")
    except Exception as error:
        raise Mistake(f"benchmark {source.name!r}: {', '.join(map(str, files))} cannot be read: {_first_line(error)}") from error
    finally:
        datasets.enable_progress_bars()


def _files(path: Path, part: str) -> list[Path]:
    """The files of a part: the file itself, `FOLDER/PART.jsonl`, or `FOLDER/PART-*` and `FOLDER/data/PART-*` as a snapshot has."""
    if path.is_file():
        return [path] if path.suffix in FORMATS else []
    for pattern in (f"{part}.*", f"{part}-*", f"data/{part}-*"):
        if files := sorted(file for file in path.glob(pattern) if file.suffix in FORMATS):
            return files
    return []


def _check_parts(source: Source, path: Path) -> None:
    """Raise `Mistake` where a path holds none of the parts, so that a wrong folder is no empty benchmark."""
    wanted = list(dict.fromkeys(part for _, part in source.splits))
    if not any(_files(path, part) for part in wanted):
        raise Mistake(
            f"benchmark {source.name!r}: {str(path)!r} holds none of the parts {', '.join(wanted)}",
            found=sorted(file.name for file in path.iterdir())[:10] if path.is_dir() else path.name,
            expected=f"a file such as {wanted[-1]}.jsonl",
        )


def _not_loaded(source: Source, part: str, error: Exception) -> Mistake:
    folder = os.environ.get(DATA_FOLDER, "")
    local = f"{DATA_FOLDER}={folder} has no folder {source.name!r}" if folder else f"{DATA_FOLDER} is not set"
    return Mistake(
        f"benchmark {source.name!r} needs the data set {source.data!r} (part {part!r}), which could not be loaded from the hub: "
        f"{_first_line(error)}; {local}. With the files at hand say data: FOLDER (--option data=FOLDER), a folder with {part}.jsonl, "
        f"or export {DATA_FOLDER}=FOLDER, a folder with {source.name}/{part}.jsonl; with a network: "
        f"hf download --repo-type dataset {source.data}"
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"[:300]
