"""The form of an answer, `WORD: LABEL` on a line of its own at the end, and the strict reader of it.

Models that judge reason first, so an answer is free text; what counts is its last line. The reader sees the answer alone, never the
question, so nothing that an environment said can be read as a judgement, unless the judge says it itself. It takes no hint: a last line
that is anything else, a second judgement that says otherwise, or thinking that never ended make an answer unparsable.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

THINKING, THOUGHT = "<think>", "</think>"
_EMPHASIS = r"[*_`\s]*"
"""What models put around a judgement: Markdown emphasis and white space. No ">", which marks what is quoted from an episode."""


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer has to end with.

    Attributes:
        word: What stands before the colon, for example "Judgement".
        labels: What may stand after it, for example ("Good", "Bad", "Uncertain").
        spellings: Other spellings of the word that are read as well.
    """

    word: str
    labels: tuple[str, ...]
    spellings: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """Every line that an answer may end with, as it is asked for: what a constrained answer is chosen from."""
        return tuple(f"{self.word}: {label}" for label in self.labels)

    @property
    def request(self) -> str:
        """How a question asks for it, after free reasoning."""
        return "Reason briefly. Then end your answer with a line of its own that is one of these:\n" + "\n".join(self.lines)

    @property
    def again(self) -> str:
        """How it is asked for once more, where an answer could not be read."""
        return "Answer now with one of these lines and nothing else:\n" + "\n".join(self.lines)

    def read(self, answer: str) -> str | None:
        """The label that the answer ends with; None where it cannot be read, which is never guessed at."""
        _, thought, rest = answer.rpartition(THOUGHT)
        if THINKING in (rest if thought else answer):
            return None
        lines = [line for line in rest.split("\n") if line.strip()]
        found = [self._label(line) for line in lines]
        if not found or found[-1] is None:
            return None
        return found[-1] if set(found) <= {None, found[-1]} else None

    def _label(self, line: str) -> str | None:
        words = "|".join(re.escape(word) for word in (self.word, *self.spellings))
        labels = "|".join(re.escape(label) for label in self.labels)
        pattern = f"{_EMPHASIS}(?:{words}){_EMPHASIS}:{_EMPHASIS}({labels}){_EMPHASIS}\\.?{_EMPHASIS}"
        match = re.fullmatch(pattern, line, flags=re.IGNORECASE | re.ASCII)
        return None if match is None else next(label for label in self.labels if label.lower() == match.group(1).lower())
