"""Random bushy trees as a search leaves them, grown through the chat templates of real models: wins, losses, cut and unfinished leaves."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from agentloop.trace.render import Conversation, Renderer
from agentloop.trace.tree import Draw, Tree, Turn, Verdict
from agentloop.trace.verdict import BAD, FIRST_ERROR, GOOD, UNCERTAIN
from tests.trace.conftest import tokenizer

SYSTEM = ""
FIRST = "You are in a kitchen. Find the apple."
REPLIES = ["look", "open fridge", "take apple", "<think>\nhm\n</think>\n\ngo north", "é 🙂"]
OBSERVATIONS = ["You see a fridge.", "Nothing happens.", "{}", "No.", ""]
REWARDS = [0.0, 0.3, 0.5, 0.7, 0.8, 1.0]
LABELS = [GOOD, GOOD, GOOD, UNCERTAIN, BAD, None]
MOST_TURNS = 14


@functools.cache
def renderer_of(name: str) -> Renderer:
    """The renderer of a template, made once."""
    return Renderer(tokenizer(name))


def bushy_trees(template: str) -> st.SearchStrategy[Tree]:
    """Trees of at most `MOST_TURNS` turns that are judged here and there, with the odd verdict missing."""
    renderer_of(template)  # makes what it makes before anything is drawn
    return _bushy_trees(template)


@st.composite
def _bushy_trees(draw: st.DrawFn, template: str) -> Tree:
    renderer, chat = renderer_of(template), tokenizer(template)
    turns: list[Turn] = []

    def grow(conversation: Conversation, parent: Turn | None, observation: str, depth: int) -> None:
        prompt = conversation.observe(observation)
        for _ in range(draw(st.integers(1, 3))):
            if len(turns) >= MOST_TURNS:
                return
            branch = conversation.fork()
            cut = draw(st.integers(0, 5)) == 0
            ids = tuple(chat.encode(draw(st.sampled_from(REPLIES)), add_special_tokens=False, split_special_tokens=True))
            ids += () if cut else renderer.stop_token_ids[:1]
            turn = Turn(
                id=f"n{len(turns)}",
                parent=None if parent is None else parent.id,
                extends=prompt.extends,
                fresh=prompt.fresh,
                prompt_ids=prompt.ids,
                completion_ids=ids,
                logprobs=tuple(-0.25 for _ in ids),
                text=renderer.text(ids),
                action=renderer.text(ids),
                observation=draw(st.sampled_from(OBSERVATIONS)),
                draw=Draw("actor-000-abc", temperature=1.0, seed=len(turns)),
                finish="length" if cut else "stop",
            )
            branch.add(turn)
            ends = draw(st.sampled_from(["on", "on", "done", "cut", "open"])) if depth < 4 else "done"
            at = len(turns)
            turns.append(turn)
            if ends == "done":
                reward = draw(st.sampled_from(REWARDS))
                turns[at] = replace(turn, done=True, reward=reward, success=reward == 1.0)
            elif ends == "cut":
                turns[at] = replace(turn, truncated="turns", reward=draw(st.sampled_from(REWARDS)), success=False)
            elif ends == "on":
                grow(branch, turn, turn.observation or "", depth + 1)

    grow(Conversation(renderer, SYSTEM), None, FIRST, 1)
    labels = {turn.id: draw(st.sampled_from(LABELS)) for turn in turns}
    verdicts = tuple(Verdict(FIRST_ERROR, turn, None, label) for turn, label in labels.items() if label is not None)
    return Tree(
        "000/trees/apple",
        "apple",
        "kitchen",
        "train",
        tuple(turns),
        verdicts=verdicts,
        samples=(0,),
        system_prompt=SYSTEM,
        first_observation=FIRST,
        seed=draw(st.integers(0, 99)),
    )


def official(template: str, texts: Sequence[str]) -> tuple[int, ...]:
    """Ids by the tokenizer's own `apply_chat_template` of texts that user and assistant say in turn, generation prompt included."""
    chat: Any = tokenizer(template)
    messages = [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(texts)]
    return tuple(
        chat.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=False, date_string="26 Jul 2024")
    )
