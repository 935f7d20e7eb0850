"""One seat's context in one episode: which ids to feed now, and what to do when they do not fit.

The context only grows by appended ids; where that cannot be, the next prompt is started afresh and says why (`Prompt.fresh`):

========== ============================================= ==========================================================
fresh      when                                          do rows of the segment train?
========== ============================================= ==========================================================
start      the first prompt (or "seat", "critic": the    yes (a critic's only for the critic's role)
           caller says)
template   the template would alter the turn before      yes: ids and log-probabilities are those of this context
window     overflow "window": the oldest turns are left  yes: the turns that are kept are context there, with mask 0
           out
summary    overflow "summarise": a summary by the policy yes, and so does the turn that wrote the summary
           stands for the turns so far
========== ============================================= ==========================================================

Under overflow "stop" nothing is started afresh: `observe` raises `ContextFull`, the episode is truncated ("context") and what was sampled
trains like any other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agentloop.errors import AgentloopError
from agentloop.trace.template import Message
from agentloop.trace.tree import FreshReason, Turn

if TYPE_CHECKING:
    from agentloop.trace.render import Example, Renderer

Overflow = Literal["stop", "window", "summarise"]

WINDOW_NOTE = "(The turns that followed are left out here; the latest ones are below.)"
SUMMARY_QUESTION = (
    "The conversation is getting too long. Summarise in a few sentences what you have done and found out so far and what remains to do."
)


class ContextFull(AgentloopError):
    """The next prompt and the completion do not fit into the context.

    Attributes:
        needed: Tokens of the prompt and of the reserve for the completion.
        limit: Tokens that there is room for.
    """

    def __init__(self, needed: int, limit: int) -> None:
        self.needed = needed
        self.limit = limit
        super().__init__(f"the context is full: {needed} tokens are needed, {limit} fit")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to feed now; `ids`, `extends` and `fresh` go into the turn as they are.

    Attributes:
        ids: What is new since the turn that is extended, or the whole prompt if `fresh`.
        extends: Id of the turn whose context this continues, or None.
        fresh: Why the context was started afresh, or None.
        asks_summary: The policy is asked to summarise, not to act: sample a turn without a step, `add` it, and `observe` the same text
            again.
    """

    ids: tuple[int, ...]
    extends: str | None
    fresh: FreshReason | None
    asks_summary: bool = False


@dataclass(frozen=True, slots=True)
class _Exchange:
    """A sampled turn as history, and the observation that it was followed by."""

    reply: Message
    observation: Message


class Conversation:
    """One seat's context in one episode.

    Usage: `prompt = conversation.observe(text)`; sample from `conversation.context_ids`; make a `Turn` with `prompt.ids`,
    `prompt.extends` and `prompt.fresh`; `conversation.add(turn)`; and again. Observing again before a turn is added replaces the pending
    prompt.

    Args:
        renderer: The model's renderer.
        system_prompt: Text of the system message; "" for none.
        examples: Worked examples that come before the first observation.
        max_context: Tokens that prompt and completion may take together; None for no limit.
        reserve: Tokens kept for the completion (`max_tokens`).
        overflow: What to do when the next prompt does not fit, see the module.
        window_share: Share of the room that a window may fill, so that it is not moved at every turn.
        summary_question: What the policy is asked under "summarise".

    Attributes:
        fresh_counts: How many contexts were started afresh, by reason.
    """

    def __init__(
        self,
        renderer: Renderer,
        system_prompt: str = "",
        *,
        examples: Sequence[Example] = (),
        max_context: int | None = None,
        reserve: int = 0,
        overflow: Overflow = "stop",
        window_share: float = 0.5,
        summary_question: str = SUMMARY_QUESTION,
    ) -> None:
        self._renderer = renderer
        self._head = renderer.head(system_prompt, examples)
        self._max_context = max_context
        self._reserve = reserve
        self._overflow = overflow
        self._window_share = window_share
        self._question = summary_question
        self._first = ""
        self._reason: FreshReason = "start"
        self._opening: list[Message] = []  # head and first observation of the present context
        self._history: list[_Exchange] = []
        self._last: Turn | None = None
        self._ids: list[int] = []  # context up to the last completion
        self._pending: tuple[Prompt, list[Message], list[_Exchange]] | None = None
        self._summarising = False
        self.fresh_counts: Counter[FreshReason] = Counter()

    @property
    def context_ids(self) -> tuple[int, ...]:
        """All that the model sees if it is sampled now: the pending prompt included."""
        if self._pending is None:
            return tuple(self._ids)
        prompt = self._pending[0]
        return prompt.ids if prompt.fresh is not None else (*self._ids, *prompt.ids)

    @property
    def context_length(self) -> int:
        """Length of `context_ids`."""
        if self._pending is None:
            return len(self._ids)
        prompt = self._pending[0]
        return len(prompt.ids) + (0 if prompt.fresh is not None else len(self._ids))

    def start(self, observation: str, reason: FreshReason = "start") -> Prompt:
        """The first prompt. Raises `ContextFull` if it does not fit."""
        if self._last is not None:
            raise ValueError("this conversation has started already")
        self._first, self._reason = observation, reason
        opening = [*self._head, Message("user", observation)]
        prompt = Prompt(self._renderer.render(opening), None, reason)
        self._check(len(prompt.ids))
        return self._propose(prompt, opening, [])

    def observe(self, text: str) -> Prompt:
        """The prompt after an observation (the first one starts the conversation). Raises `ContextFull` where the policy leaves no way."""
        if self._last is None:
            return self.start(text, self._reason)
        if self._summarising:
            return self._after_summary(self._last, text)
        observation = Message(self._renderer.observation_role, text)
        exchange = _Exchange(Message("assistant", self._renderer.history_ids(self._last.completion_ids)), observation)
        history = [*self._history, exchange]
        prompt = self._next(self._last, history)
        length = len(prompt.ids) + (0 if prompt.fresh is not None else len(self._ids))
        if self._fits(length + self._summary_reserve()):
            return self._propose(prompt, self._opening, history)
        if self._overflow == "window":
            return self._window(history)
        if self._overflow == "summarise":
            return self._ask_summary(self._last, exchange.reply)
        raise ContextFull(length + self._reserve, self._max_context or 0)

    def add(self, turn: Turn) -> None:
        """Record the turn that was sampled from the pending prompt.

        Raises:
            ValueError: No prompt is pending, or the turn's prompt is another.
        """
        if self._pending is None:
            raise ValueError(f"turn {turn.id}: no prompt is pending; observe first")
        prompt, opening, history = self._pending
        if (turn.prompt_ids, turn.extends, turn.fresh) != (prompt.ids, prompt.extends, prompt.fresh):
            raise ValueError(f"turn {turn.id} was not sampled from the pending prompt")
        if prompt.fresh is not None:
            self.fresh_counts[prompt.fresh] += 1
            self._ids = []
        self._ids += turn.prompt_ids
        self._ids += turn.completion_ids
        self._opening, self._history, self._last, self._pending = opening, history, turn, None
        self._summarising = prompt.asks_summary

    def follow(self, observation: str, turn: Turn) -> None:
        """Take up a turn that was sampled in an equal conversation, with the ids that it stores; nothing of it is tokenised again.

        Args:
            observation: What was observed before the turn was sampled (before a summary and after it, the same).
            turn: The turn that came next; one without an action and an observation wrote a summary.

        Raises:
            ValueError: The turn does not continue this conversation, or was sampled under another overflow policy.
        """
        wrote = turn.action is None and turn.observation is None
        asks_summary = wrote and self._overflow == "summarise" and self._last is not None
        opening, history = self._opening, self._history
        if turn.fresh is None and (self._last is None or turn.extends != self._last.id):
            raise ValueError(f"turn {turn.id} extends {turn.extends!r}: it does not continue this conversation")
        if self._last is None:
            opening = [*self._head, Message("user", observation)]
            self._first = observation
        elif turn.fresh == "summary":
            opening, history = self._summarised(self._last, observation)
        else:
            reply = Message("assistant", self._renderer.history_ids(self._last.completion_ids))
            said = self._question if asks_summary else observation
            history = [*history, _Exchange(reply, Message(self._renderer.observation_role, said))]
        if turn.fresh == "window":
            opening, history = self._found_window(turn, history)
        self._propose(Prompt(turn.prompt_ids, turn.extends, turn.fresh, asks_summary), opening, history)
        self.add(turn)

    def fork(self) -> Conversation:
        """An independent copy, pending prompt included: for search, and for several draws from one prompt."""
        other = object.__new__(Conversation)
        other.__dict__.update(self.__dict__)
        other._ids = list(self._ids)
        other.fresh_counts = Counter(self.fresh_counts)
        return other

    def _next(self, last: Turn, history: Sequence[_Exchange]) -> Prompt:
        """The prompt that continues the present context, or the whole of it where the template would alter the last turn."""
        if self._renderer.keeps(last.completion_ids):
            observation = history[-1].observation.content
            assert isinstance(observation, str)
            return Prompt(self._renderer.bridge(last.completion_ids, observation), last.id, None)
        return Prompt(self._render(self._opening, history), None, "template")

    def _window(self, history: list[_Exchange]) -> Prompt:
        """Keep the first observation and as many of the latest turns as fill the window's share of the room, at least the last one."""
        opening = self._window_opening()
        room = (self._max_context or 0) - self._reserve
        ids: tuple[int, ...] = ()
        kept: list[_Exchange] = []
        for first in range(len(history) - 1, -1, -1):
            whole = self._render(opening, history[first:])
            if kept and len(whole) > self._window_share * room:
                break
            ids, kept = whole, history[first:]
        self._check(len(ids))
        return self._propose(Prompt(ids, None, "window"), opening, kept)

    def _window_opening(self) -> list[Message]:
        return [*self._head, Message("user", f"{self._first}\n\n{WINDOW_NOTE}")]

    def _found_window(self, turn: Turn, history: list[_Exchange]) -> tuple[list[Message], list[_Exchange]]:
        """The messages of a window whose ids are known: how many exchanges were kept is not stored, and is found by trying."""
        opening = self._window_opening()
        for first in range(len(history)):
            if self._render(opening, history[first:]) == turn.prompt_ids:
                return opening, history[first:]
        raise ValueError(f"turn {turn.id} was sampled from a window that this conversation cannot have had")

    def _ask_summary(self, last: Turn, reply: Message) -> Prompt:
        history = [*self._history, _Exchange(reply, Message(self._renderer.observation_role, self._question))]
        prompt = self._next(last, history)
        self._check(len(prompt.ids) + (0 if prompt.fresh is not None else len(self._ids)))
        return self._propose(Prompt(prompt.ids, prompt.extends, prompt.fresh, asks_summary=True), self._opening, history)

    def _after_summary(self, last: Turn, observation: str) -> Prompt:
        opening, history = self._summarised(last, observation)
        ids = self._render(opening, history)
        self._check(len(ids) + self._summary_reserve())
        return self._propose(Prompt(ids, None, "summary"), opening, history)

    def _summarised(self, last: Turn, observation: str) -> tuple[list[Message], list[_Exchange]]:
        """The first observation with the question, the summary in its own ids, the latest observation."""
        opening = [*self._head, Message("user", f"{self._first}\n\n{self._question}")]
        reply = Message("assistant", self._renderer.history_ids(last.completion_ids))
        return opening, [_Exchange(reply, Message(self._renderer.observation_role, observation))]

    def _summary_reserve(self) -> int:
        """Room that must be left after the next completion, so that its summary can still be asked for and written."""
        if self._overflow != "summarise" or self._max_context is None:
            return 0
        return len(self._renderer.bridge((), self._question)) + self._reserve

    def _render(self, opening: Sequence[Message], history: Sequence[_Exchange]) -> tuple[int, ...]:
        messages = list(opening)
        for exchange in history:
            messages += [exchange.reply, exchange.observation]
        return self._renderer.render(messages)

    def _fits(self, length: int) -> bool:
        return self._max_context is None or length + self._reserve <= self._max_context

    def _check(self, length: int) -> None:
        if not self._fits(length):
            raise ContextFull(length + self._reserve, self._max_context or 0)

    def _propose(self, prompt: Prompt, opening: list[Message], history: list[_Exchange]) -> Prompt:
        self._pending = (prompt, opening, history)
        return prompt
