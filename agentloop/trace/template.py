"""What a chat template does, found out by rendering dummy conversations with it.

Texts never pass through the template: it is rendered with sentinels in their place, so that its structure cannot depend on what an
environment says, and the texts are put in afterwards, trimmed as the template would trim them. What has to be known beforehand: whether
there is a system role, which roles trim their text, which token ends an assistant's turn, and how the template would show an assistant's
turn once it is history.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import jinja2

from agentloop.errors import Mistake
from agentloop.trace.encode import ChatTokenizer, Encoder, Piece

Role = Literal["system", "user", "assistant", "tool"]

_SENTINEL = re.compile("\ue000(\\d+)\ue001")
# What a template raises on a message that its author did not foresee, by `raise_exception` or by accident.
RENDERING_ERRORS = (jinja2.TemplateError, AttributeError, IndexError, KeyError, TypeError, ValueError)
_DATE = "26 Jul 2024"  # Llama's own default; templates that print today's date would make every day's prompts different


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat, as text or, for what the policy sampled, as the stored ids (without the stop token)."""

    role: Role
    content: str | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Bridge:
    """The template's text from the end of an assistant's content to the next generation prompt, around one observation.

    Attributes:
        closing: Text from the content up to and including the end-of-turn token; "" if the template writes none.
        before: Text after the closing, up to the observation.
        after: Text from the observation to the end of the generation prompt.
    """

    closing: str
    before: str
    after: str


class ChatTemplate:
    """A tokenizer's chat template, probed.

    Args:
        tokenizer: The tokenizer that carries the template.
        observation_role: Role that observations after the first are given, "user" or "tool".
        template_kwargs: Passed to the template as they are, for example `{"enable_thinking": False}`.

    Attributes:
        has_system: Whether there is a system role; else the system prompt is put before the first user message.
        end_of_turn: The token that ends an assistant's turn, as text.

    Raises:
        Mistake: There is no template, it has no role `observation_role`, or no token ends a turn.
    """

    def __init__(self, tokenizer: ChatTokenizer, observation_role: Literal["user", "tool"], template_kwargs: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        try:
            source = tokenizer.get_chat_template()
        except (ValueError, AttributeError) as error:
            raise Mistake("the model has no chat template; an instruction-tuned model is needed") from error
        self.source = source if isinstance(source, str) else str(source)
        self._kwargs = dict(template_kwargs)
        if "strftime_now" in self.source and "date_string" in self.source:
            self._kwargs.setdefault("date_string", _DATE)
        self.encoder = Encoder(tokenizer, self.source)
        self.observation_role: Literal["user", "tool"] = observation_role
        self.has_system = self._supports([("system", "\ue0000\ue001"), ("user", "\ue0001\ue001")])
        plays = {
            role: self._supports([("user", "\ue0000\ue001"), ("assistant", "\ue0001\ue001"), (role, "\ue0002\ue001")])
            for role in dict.fromkeys(["user", observation_role])
        }
        if not plays["user"]:
            raise Mistake("the chat template of this model cannot show plain text from a user and an assistant in turn")
        if not plays[observation_role]:
            raise Mistake(f"the chat template of this model has no role {observation_role!r} for observations", expected="'user'")
        self._trims: dict[Role, tuple[bool, bool]] = {}
        for role in ("system", "user", "assistant", observation_role):
            self._trims[role] = self._probe_trim(role)
        self.bridge = self._find_bridge()
        self._history_frame = self._find_history_frame()
        self._generation_frame = _squeeze(self.render([("user", "u")], generate=True))
        self.end_of_turn = self._find_end_of_turn()

    def render(self, messages: Sequence[tuple[str, str]], *, generate: bool) -> str:
        """The template's text for messages (role, content), with a generation prompt if `generate`."""
        conversation = [{"role": role, "content": content} for role, content in messages]
        text = self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=generate, **self._kwargs)
        return str(text)

    def pieces(self, messages: Sequence[Message], *, generate: bool = True) -> list[Piece | tuple[int, ...]]:
        """The whole prompt for messages, with a generation prompt at the end if `generate`: template text, data, stored ids as they are."""
        messages = self._with_system(messages)
        names = [(message.role, f"\ue000{index}\ue001") for index, message in enumerate(messages)]
        parts = _SENTINEL.split(self.render(names, generate=generate))
        pieces: list[Piece | tuple[int, ...]] = [Piece(parts[0], trusted=True)]
        for index, text in zip(parts[1::2], parts[2::2], strict=True):
            pieces += [self._data(messages[int(index)]), Piece(text, trusted=True)]
        return pieces

    def observation(self, text: str, role: Role | None = None) -> Piece:
        """An observation as data, trimmed if the template trims it."""
        return Piece(self._trimmed(text, role or self.observation_role))

    def as_history(self, text: str) -> str | None:
        """What the template would show of a sampled text once it is history; None if it refuses to render it."""
        before, after = self._history_frame
        try:
            shown = self.render([("user", "u"), ("assistant", text), (self.observation_role, "o")], generate=True)
        except RENDERING_ERRORS:
            return None
        if not (shown.startswith(before) and shown.endswith(after) and len(shown) >= len(before) + len(after)):
            return None
        return shown[len(before) : len(shown) - len(after)]

    def keeps(self, text: str) -> bool:
        """Whether a sampled text stays in the history as it was sampled, so that the context may be appended to.

        White space does not count: a template that trims it says nothing about a context whose ids stand. Neither does a template that
        refuses to render the text.
        """
        history = self.as_history(text)
        if history is None:
            return True
        before, _ = self._history_frame
        return _squeeze(before + history) == self._generation_frame + _squeeze(text)

    def _data(self, message: Message) -> Piece | tuple[int, ...]:
        if isinstance(message.content, tuple):
            return message.content
        text = message.content
        if message.role == "assistant":
            shown = self.as_history(text)
            text = text if shown is None else shown
        return Piece(self._trimmed(text, message.role), markup=message.role in ("system", "assistant"))

    def _with_system(self, messages: Sequence[Message]) -> list[Message]:
        """Messages in which the system prompt is where the template can show it; an empty one is left out."""
        if not messages or messages[0].role != "system":
            return list(messages)
        system, *rest = messages
        if not system.content:
            return rest
        if self.has_system or not rest:
            return list(messages)
        return [replace(rest[0], content=f"{system.content}\n\n{rest[0].content}"), *rest[1:]]

    def _trimmed(self, text: str, role: Role) -> str:
        left, right = self._trims[role]
        text = text.lstrip() if left else text
        return text.rstrip() if right else text

    def _supports(self, messages: Sequence[tuple[str, str]]) -> bool:
        try:
            text = self.render(messages, generate=True)
        except RENDERING_ERRORS:
            return False
        return all(text.count(content) == 1 for _, content in messages)

    def _probe_trim(self, role: Role) -> tuple[bool, bool]:
        """Whether the template trims white space (before, after) the text of a role."""
        probe = " \n\ue000\ue001\n "
        if role == "system":
            if not self.has_system:
                return (False, False)
            messages = [("system", probe), ("user", "u")]
        elif role == "user":
            messages = [("user", probe)]
        elif role == "assistant":
            messages = [("user", "u"), ("assistant", probe), (self.observation_role, "o")]
        else:
            messages = [("user", "u"), ("assistant", "a"), (role, probe)]
        text = self.render(messages, generate=True)
        return (" \n\ue000" not in text, "\ue001\n " not in text)

    def _find_bridge(self) -> Bridge:
        user, assistant, observation = (f"\ue000{index}\ue001" for index in range(3))
        text = self.render([("user", user), ("assistant", assistant), (self.observation_role, observation)], generate=True)
        between, after = text.split(assistant)[1].split(observation)
        last = self.render([("user", user), ("assistant", assistant)], generate=False).partition(assistant)[2]
        match = self.encoder.first_special(between)
        # The end-of-turn token is there whether or not a message follows; the header of the next message is not.
        if match is None or not last.startswith(between[: match.end()]):
            return Bridge("", between, after)
        return Bridge(between[: match.end()], between[match.end() :], after)

    def _find_history_frame(self) -> tuple[str, str]:
        assistant = "\ue0001\ue001"
        text = self.render([("user", "u"), ("assistant", assistant), (self.observation_role, "o")], generate=True)
        before, _, after = text.partition(assistant)
        return before, after

    def _find_end_of_turn(self) -> str:
        match = self.encoder.first_special(self.bridge.closing)
        if match is not None:
            return match.group()
        if self._tokenizer.eos_token is None:
            raise Mistake("neither the chat template nor the tokenizer of this model has a token that ends a turn")
        return self._tokenizer.eos_token


def _squeeze(text: str) -> str:
    return "".join(text.split())
