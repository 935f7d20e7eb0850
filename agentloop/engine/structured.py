"""How a server with the chat protocol is held to one of a few texts, and what became of that.

There is one field of the protocol and two of vLLM, and none that every server takes. A server that does not know a field may refuse it, or
answer as if it had not been there; both are noticed and counted. What is asked for in words stays in the question, and whoever reads the
answer reads it as strictly as any other.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Field = Literal["json_schema", "choice", "guided_choice"]
"""`response_format` with a JSON schema (OpenAI's; vLLM, SGLang, llama.cpp and most others take it), `structured_outputs: {choice}` (vLLM
from 0.12 on), or `guided_choice` (vLLM before that)."""

FIELDS: tuple[Field, ...] = get_args(Field)
KEY = "answer"
"""The only key of the object that a JSON schema asks for; its value is the text."""


@dataclass
class StructuredOutputs:
    """The field that a server is sent, and how it took it.

    Attributes:
        field: See `Field`.
        held: Answers that were one of the texts, as the server was told.
        ignored: Answers that were something else, or cut before they were one, though the server took the field.
        refused: Answers that were asked for without the field, since the server refuses it.
        refusal: What it said to the first of these.
    """

    field: Field
    held: int = 0
    ignored: int = 0
    refused: int = 0
    refusal: str = ""

    @property
    def taken(self) -> bool | None:
        """Whether the server takes the field; None before that is known."""
        return False if self.refusal else True if self.held or self.ignored else None

    def request(self, choices: Sequence[str]) -> dict[str, Any]:
        """What a request has besides, so that its answer is one of `choices`."""
        if self.field == "choice":
            return {"structured_outputs": {"choice": list(choices)}}
        if self.field == "guided_choice":
            return {"guided_choice": list(choices)}
        schema = {
            "type": "object",
            "properties": {KEY: {"type": "string", "enum": list(choices)}},
            "required": [KEY],
            "additionalProperties": False,
        }
        return {"response_format": {"type": "json_schema", "json_schema": {"name": KEY, "strict": True, "schema": schema}}}

    def room(self, choices: Sequence[str]) -> int:
        """Tokens that are enough for any answer with a little white space: no tokenizer needs more than one a byte."""
        return max(len(json.dumps({KEY: choice}).encode()) for choice in choices) + 8

    def read(self, text: str, choices: Sequence[str]) -> str | None:
        """The text that the server chose; None if its answer is no such choice."""
        found: object = text.strip()
        if self.field == "json_schema":
            try:
                parsed = json.loads(text)
            except ValueError:
                return None
            found = parsed[KEY] if isinstance(parsed, dict) and parsed.keys() == {KEY} else None
        return found if isinstance(found, str) and found in choices else None

    def told(self) -> dict[str, Any]:
        """The numbers, for a report."""
        counts = {"field": self.field, "held": self.held, "ignored": self.ignored, "refused": self.refused}
        return counts | ({"refusal": self.refusal} if self.refusal else {})
