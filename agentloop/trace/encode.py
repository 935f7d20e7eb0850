"""Text to ids such that no piece of data can forge a control token.

A prompt is a sequence of pieces: the chat template's own text, in which control tokens mean what they say, and data (observations, worked
examples, system prompts), in which they are plain characters. The invariants:

- a control token occurs in the ids exactly where the template put it;
- where no data contains the spelling of a control token, the ids are those of encoding the whole string at once, merges across the
  borders of pieces included, hence identical to what the model's official template gives.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

WRITTEN_MARKUP = re.compile(r"[<>\[\]{}|/]")
"""What tells a markup token such as "<think>" from an added token that is ordinary text, such as Gemma's runs of spaces."""


class ChatTokenizer(Protocol):
    """What is used of a transformers tokenizer; anything of this shape will do."""

    @property
    def eos_token(self) -> str | None: ...

    @property
    def eos_token_id(self) -> int | None: ...

    @property
    def all_special_ids(self) -> list[int]: ...

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]: ...

    def get_chat_template(self) -> str: ...

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: Any) -> Any: ...

    def encode(self, text: str, **kwargs: Any) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], **kwargs: Any) -> str: ...

    def convert_ids_to_tokens(self, ids: int) -> Any: ...


class Piece(NamedTuple):
    """A stretch of a prompt.

    Attributes:
        text: The text.
        trusted: Whether control tokens in it are meant; true of the template's own text only.
        markup: Whether non-special markup tokens ("<think>", "<tool_call>") in it are meant: true of the recipe author's and the policy's
            own text, false of what an environment says. Special tokens are never meant in data.
    """

    text: str
    trusted: bool = False
    markup: bool = False


class Encoder:
    """Encodes pieces for one tokenizer.

    Args:
        tokenizer: The tokenizer.
        template: Source of its chat template, in which the non-special markup tokens that it uses are looked up.
    """

    def __init__(self, tokenizer: ChatTokenizer, template: str) -> None:
        self._tokenizer = tokenizer
        special: dict[str, int] = {}
        markup: dict[str, int] = {}
        for token_id, added in tokenizer.added_tokens_decoder.items():
            text = str(getattr(added, "content", added))
            if getattr(added, "special", True):
                special[text] = token_id
            elif text in template and WRITTEN_MARKUP.search(text):
                markup[text] = token_id
        for token_id in tokenizer.all_special_ids:
            token = tokenizer.convert_ids_to_tokens(token_id)
            if isinstance(token, str):
                special.setdefault(token, token_id)
        self.special: Mapping[str, int] = special
        self.markup: Mapping[str, int] = markup
        self._control_ids = frozenset(special.values()) | frozenset(markup.values())
        self._any = _alternatives([*special, *markup])
        self._special_only = _alternatives(special)
        self._markup_only = _alternatives(markup)

    def first_special(self, text: str) -> re.Match[str] | None:
        """The first special token spelt out in `text`."""
        return self._special_only.search(text)

    def harmless(self, text: str, *, markup: bool = False) -> bool:
        """Whether data spells no control token (`markup`: non-special markup tokens are allowed)."""
        return (self._special_only if markup else self._any).search(text) is None

    def ids(self, pieces: Iterable[Piece]) -> list[int]:
        """The ids of the pieces in a row, with control tokens exactly where a trusted piece (or allowed markup) has them."""
        pieces = [piece for piece in pieces if piece.text]
        runs = self._runs(pieces)
        joined = "".join(piece.text for piece in pieces)
        meant = [control for _, control in runs if control is not None]
        if [self._id(match.group()) for match in self._any.finditer(joined)] == meant:
            ids = self._encode(joined, split_special_tokens=False)
            if [token for token in ids if token in self._control_ids] == meant:
                return ids
        ids = []
        for text, control in runs:
            ids += self._plain(text)
            if control is not None:
                ids.append(control)
        return ids

    def _runs(self, pieces: Sequence[Piece]) -> list[tuple[str, int | None]]:
        """Stretches of plain text, each with the control token that is meant after it (None after the last)."""
        runs: list[tuple[str, int | None]] = []
        plain = ""
        for piece in pieces:
            pattern = self._any if piece.trusted else self._markup_only if piece.markup else _NEVER
            end = 0
            for match in pattern.finditer(piece.text):
                runs.append((plain + piece.text[end : match.start()], self._id(match.group())))
                plain, end = "", match.end()
            plain += piece.text[end:]
        return [*runs, (plain, None)]

    def _plain(self, text: str) -> list[int]:
        """Ids of text in which every control token is broken into ordinary ones."""
        ids: list[int] = []
        start = 0
        for match in self._markup_only.finditer(text):  # `split_special_tokens` splits special tokens only
            ids += self._encode(text[start : match.start() + 1], split_special_tokens=True)
            start = match.start() + 1
        ids += self._encode(text[start:], split_special_tokens=True)
        if self._control_ids.isdisjoint(ids):
            return ids
        # A unigram model, or one that ignores merges, can find the token in its vocabulary all the same: not so a character at a time.
        return [token for letter in text for token in self._encode(letter, split_special_tokens=True)]

    def _encode(self, text: str, *, split_special_tokens: bool) -> list[int]:
        if not text:
            return []
        return list(self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=split_special_tokens))

    def _id(self, token: str) -> int:
        return self.special[token] if token in self.special else self.markup[token]


_NEVER = re.compile(r"(?!)")


def _alternatives(words: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the words, the longest where several start at one place."""
    ordered = sorted((word for word in words if word), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else _NEVER
