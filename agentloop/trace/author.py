"""Turns that nobody sampled, written into contexts through the model's own chat template: spliced revisions, relabelled goals, targets of
a world model.

A builder that needs such turns is given an `Author`, which knows the model's template and nothing of engines or environments, so that the
builder stays a pure function. What a `Draft` keeps:

- it begins with the ids that a stored turn's context and completion have, as they are, or with an opening of its own;
- each text becomes ids once, as data where it is data, and the context then only grows by appended ids; where the template would alter the
  turn before (it drops its thinking), the next context is started afresh, "template", as in any `Conversation`;
- completions that are taken from elsewhere keep the ids that were sampled there;
- every turn that is added is authored: in this context nobody sampled it, so it has no log-probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentloop.errors import Mistake
from agentloop.trace.conversation import Conversation
from agentloop.trace.render import Example, Renderer
from agentloop.trace.tree import Draw, Tree, Turn

_RETOLD = (None, "start", "seat", "template")
"""Reasons of fresh contexts after which the whole past is still known: no window was dropped, nothing summarised."""


@dataclass(frozen=True, slots=True)
class Author:
    """Begins drafts for one model.

    Attributes:
        renderer: The model's renderer.
        examples: Worked examples that preceded the first observation of every episode. Stored ids hold them, so they are needed only where
            a context has to be written afresh.
    """

    renderer: Renderer
    examples: Sequence[Example] = ()

    def begin(self, system_prompt: str) -> Draft:
        """A draft with an opening of its own; the first text that is shown to the model is its first observation."""
        return Draft(self.renderer, Conversation(self.renderer, system_prompt, examples=self.examples))

    def after(self, tree: Tree, turn: str) -> Draft:
        """A draft that goes on after a stored turn, in the context that the turn was in. What other seats did on the way is not in it."""
        conversation = Conversation(self.renderer, tree.system_prompt, examples=self.examples)
        path = [before for before in tree.path(turn) if before.seat == tree[turn].seat]
        observation = tree.first_observation
        for before in path:
            conversation.follow(observation, before)
            observation = before.observation if before.observation is not None else observation
        return Draft(self.renderer, conversation, tree.segment(turn), refusal=self._refusal(tree, path))

    def _refusal(self, tree: Tree, path: Sequence[Turn]) -> str:
        """Why the past of a path could not be told again from the beginning; "" where it can."""
        if any(turn.fresh not in _RETOLD or turn.observation is None for turn in path):
            reason = "parts of it were dropped"
        elif path[0].prompt_ids != self.renderer.start(tree.system_prompt, tree.first_observation, self.examples):
            reason = "other worked examples or another system prompt came first"
        else:
            return ""
        where = f"the past of turn {path[-1].id} in tree {tree.id}"
        return f"the chat template of this model alters earlier turns, so that {where} has to be told again, and it is not known: {reason}"


class Draft:
    """A context that grows by written turns. Made by `Author`.

    Attributes:
        added: The turns that were added, in order.
    """

    def __init__(self, renderer: Renderer, conversation: Conversation, stored: Sequence[Turn] = (), *, refusal: str = "") -> None:
        self._renderer = renderer
        self._conversation = conversation
        self._last = stored[-1] if stored else None
        self._refusal = refusal
        self._segments: list[list[Turn]] = [list(stored)]
        self._ids = {turn.id for turn in stored}
        self.added: list[Turn] = []

    @property
    def segments(self) -> list[list[Turn]]:
        """The unbroken contexts that hold added turns, in order, each whole: the stored turns that the first one goes on from included."""
        return self._segments if self.added and self.added[0].fresh is None else self._segments[1:]

    def say(self, observation: str, text: str) -> Turn:
        """Show an observation and answer it with a text, stop token included. Returns the turn."""
        last = self._last
        return self._add(
            observation,
            Turn(
                id=f"{'' if last is None else last.id}~{len(self.added)}",
                parent=None,
                extends=None,
                fresh="authored",
                prompt_ids=(),
                completion_ids=self._renderer.written(text),
                logprobs=None,
                text=text,
                draw=Draw("base") if last is None else replace(last.draw, seed=None, copies=1),
                finish="authored",
                seat="actor" if last is None else last.seat,
                role="actor" if last is None else last.role,
            ),
        )

    def repeat(self, observation: str, turn: Turn) -> Turn:
        """Show an observation and answer it as a stored turn did, with the ids that it has. Returns the turn as it stands in the draft.

        Raises:
            ValueError: The draft has a turn of that id.
        """
        return self._add(observation, turn)

    def _add(self, observation: str, turn: Turn) -> Turn:
        conversation, last = self._conversation, self._last
        if turn.id in self._ids:
            raise ValueError(f"a draft cannot hold turn {turn.id} twice")
        prompt = conversation.start(observation, "authored") if last is None else conversation.observe(observation)
        if prompt.fresh == "template" and self._refusal:
            raise Mistake(self._refusal, expected="trees sampled under this recipe's own prompt, with overflow: stop")
        turn = replace(
            turn,
            parent=None if last is None else last.id,
            extends=prompt.extends,
            fresh=prompt.fresh,
            prompt_ids=prompt.ids,
            logprobs=None,
            draw=replace(turn.draw, kind="authored"),
            given=False,
        )
        conversation.add(turn)
        if prompt.fresh is not None:
            self._segments.append([])
        self._segments[-1].append(turn)
        self._ids.add(turn.id)
        self.added.append(turn)
        self._last = turn
        return turn
