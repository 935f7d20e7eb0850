"""The token renderer: turns a chat into ids once, and then only appends.

A sampled turn is never rendered again. What stands between it and the next generation prompt is taken from a dummy conversation; where
the whole prompt has to be made afresh (a template that alters earlier turns, a dropped window, a summary), the stored ids of the turns
that stay are put in as they are. Text is data: see `agentloop.trace.encode`.

`Conversation`, in `agentloop.trace.conversation`, keeps one seat's context in one episode with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from agentloop.trace.conversation import ContextFull, Conversation, Overflow, Prompt
from agentloop.trace.encode import ChatTokenizer, Piece
from agentloop.trace.template import ChatTemplate, Message

__all__ = ["ChatTokenizer", "ContextFull", "Conversation", "Example", "Message", "Overflow", "Prompt", "Renderer"]

Example = tuple[str, str] | Message
"""A worked example's (user, assistant) texts, or one message of it; a transcript of several turns is several in a row."""


class Renderer:
    """Makes prompts for one model.

    Args:
        tokenizer: A transformers tokenizer with a chat template, or anything of that shape.
        observation_role: Role of observations after the first, "user" or, where the template has it, "tool".
        history: "template" follows a template that alters earlier turns (Qwen 3 drops their thinking): such a turn ends its segment and
            the next context starts afresh. "append" keeps every turn as it was sampled, whatever the template would do.
        chat_template_kwargs: Passed to the template, for example `{"enable_thinking": False}`.

    Attributes:
        stop_token_ids: Ids that end a turn: the template's end-of-turn token first, then the end-of-text token if it is another.
        appendable: Whether contexts of plain and of thinking turns grow by appended ids only.
        strips_thinking: Whether the template drops the thinking of earlier turns.
        policy: One sentence for people that says what is done about it.

    Raises:
        Mistake: The tokenizer has no usable chat template, or not the role asked for.
    """

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        *,
        observation_role: Literal["user", "tool"] = "user",
        history: Literal["template", "append"] = "template",
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._template = ChatTemplate(tokenizer, observation_role, chat_template_kwargs or {})
        self._encoder = self._template.encoder
        self._history = history
        self.observation_role: Literal["user", "tool"] = observation_role
        self.end_of_turn_id = self._encoder.ids([Piece(self._template.end_of_turn, trusted=True)])[-1]
        eos = tokenizer.eos_token_id
        self.stop_token_ids: tuple[int, ...] = tuple(dict.fromkeys([self.end_of_turn_id] + ([] if eos is None else [eos])))
        thinking = self._template.as_history("<think>\nthinking\n</think>\n\nanswer")
        self.strips_thinking = thinking is not None and "thinking" not in thinking
        self.appendable = all(map(self._template.keeps, ("answer", "<think>\nthinking\n</think>\n\nanswer")))
        self.policy = self._state_policy()

    def start(self, system_prompt: str, observation: str, examples: Sequence[Example] = ()) -> tuple[int, ...]:
        """Ids of a first prompt, generation prompt included; no system message is sent if `system_prompt` is ""."""
        return self.render([*self.head(system_prompt, examples), Message("user", observation)])

    def head(self, system_prompt: str, examples: Sequence[Example] = ()) -> list[Message]:
        """The messages before the first observation: the system prompt and worked examples."""
        messages = [Message("system", system_prompt)]
        for example in examples:
            messages += [example] if isinstance(example, Message) else [Message("user", example[0]), Message("assistant", example[1])]
        return messages

    def render(self, messages: Sequence[Message], *, generate: bool = True) -> tuple[int, ...]:
        """Ids of a whole prompt, with a generation prompt at its end if `generate`; contents that are ids stay as they are."""
        ids: list[int] = []
        run: list[Piece] = []
        for piece in self._template.pieces(messages, generate=generate):
            if isinstance(piece, Piece):
                run.append(piece)
            else:
                ids += self._encoder.ids(run)
                ids += piece
                run = []
        return tuple(ids + self._encoder.ids(run))

    def bridge(self, completion_ids: Sequence[int], observation: str) -> tuple[int, ...]:
        """Ids between a completion and the next one: what closes the turn if it was cut, the observation, the generation prompt."""
        bridge = self._template.bridge
        body = [Piece(bridge.before, trusted=True), self._template.observation(observation), Piece(bridge.after, trusted=True)]
        if not completion_ids or completion_ids[-1] not in self.stop_token_ids:
            closing = bridge.closing or self._template.end_of_turn
            return tuple(self._encoder.ids([Piece(closing, trusted=True), *body]))
        # Encoded behind the token that it follows, since some tokenizers treat the beginning of a text differently.
        anchored = self._encoder.ids([Piece(self._template.end_of_turn, trusted=True), *body])
        return tuple(anchored[anchored.index(self.end_of_turn_id) + 1 :])

    def written(self, text: str) -> tuple[int, ...]:
        """Ids of a completion that is written rather than sampled, stop token included: for authored turns."""
        said = [Piece(text, markup=True), Piece(self._template.end_of_turn, trusted=True)]
        # Encoded behind the generation prompt's last words and cut off there, for the tokenizers that `bridge` tells of.
        before = [Piece(self._template.bridge.after, trusted=True)]
        length = len(self._encoder.ids(before))
        anchored = self._encoder.ids([*before, *said])
        if anchored[:length] == self._encoder.ids(before) and self.text(anchored[length:]) == text:
            return tuple(anchored[length:])
        return tuple(self._encoder.ids(said))

    def keeps(self, completion_ids: Sequence[int]) -> bool:
        """Whether a context may be appended to after this completion."""
        return self._history == "append" or self._template.keeps(self.text(completion_ids))

    def history_ids(self, completion_ids: Sequence[int]) -> tuple[int, ...]:
        """What a prompt that is made afresh shows of a completion: its own ids without the stop token, less what the template drops."""
        ids = tuple(completion_ids)
        if ids and ids[-1] in self.stop_token_ids:
            ids = ids[:-1]
        text = self.decode(ids)
        shown = text if self._history == "append" else self._template.as_history(text)
        if shown is None or "".join(shown.split()) == "".join(text.split()):
            return ids
        first, last = 0, len(ids)
        while first < last:  # the longest suffix whose text is no longer than what is shown
            middle = (first + last) // 2
            first, last = (first, middle) if len(self.decode(ids[middle:]).rstrip()) <= len(shown.rstrip()) else (middle + 1, last)
        for start in (first, max(first - 1, 0)):  # the token before may be white space and the first word in one
            if self.decode(ids[start:]).strip() == shown.strip():
                return ids[start:]
        return tuple(self._encoder.ids([Piece(shown, markup=True)]))

    def text(self, completion_ids: Sequence[int]) -> str:
        """A completion as text, without its stop token; other special tokens in it are spelt out."""
        ids = list(completion_ids)
        return self.decode(ids[:-1] if ids and ids[-1] in self.stop_token_ids else ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Ids as text, special tokens spelt out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def _state_policy(self) -> str:
        if self.appendable:
            return "the chat template can be appended to: every context grows by appended ids only"
        what = "drops the thinking of earlier turns" if self.strips_thinking else "shows earlier turns otherwise than they were sampled"
        if self._history == "append":
            return f"the chat template {what}; this is overruled (history: append): every turn stays in the context as it was sampled"
        return f"the chat template {what}: a turn that this changes ends its segment, and the next context is started afresh ('template')"
