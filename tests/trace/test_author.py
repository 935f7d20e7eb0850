"""Written turns: contexts as the model's own template makes them, sampled ids untouched, and nothing that passes for sampled."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from agentloop.errors import Mistake
from agentloop.trace.author import Author
from agentloop.trace.render import Conversation, Renderer
from agentloop.trace.segment import segment_ids
from agentloop.trace.tree import Draw, Tree, Turn

TEMPLATES = ["smollm2", "qwen2_5", "qwen3", "qwen3_instruct_2507", "llama3", "llama3_2", "gemma", "gemma3", "phi3", "deepseek_r1_distill"]
THINKING = "<think>\nhm\n</think>\n\nopen fridge"


def official(tokenizer: Any, texts: list[str]) -> tuple[int, ...]:
    messages = [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(texts)]
    kwargs = {"date_string": "26 Jul 2024", "return_dict": False, "add_generation_prompt": True}
    return tuple(tokenizer.apply_chat_template(messages, tokenize=True, **kwargs))


def played(tokenizer: Any, steps: list[tuple[str, str]], *, examples: tuple[tuple[str, str], ...] = (), overflow: Any = "stop") -> Tree:
    """A tree of one episode of (observation, reply)."""
    renderer = Renderer(tokenizer)
    conversation = Conversation(renderer, examples=examples, overflow=overflow, max_context=300, reserve=10)
    turns: list[Turn] = []
    for number, (observation, reply) in enumerate(steps):
        prompt = conversation.observe(observation)
        ids = (*tokenizer.encode(reply, add_special_tokens=False), renderer.stop_token_ids[0])
        following = steps[number + 1][0] if number + 1 < len(steps) else "end"
        turn = Turn(
            id=f"0.{number}",
            parent=f"0.{number - 1}" if number else None,
            extends=prompt.extends,
            fresh=prompt.fresh,
            prompt_ids=prompt.ids,
            completion_ids=ids,
            logprobs=(-0.5,) * len(ids),
            text=reply,
            action=reply,
            observation=following,
            draw=Draw("actor-000-abc", seed=number),
        )
        conversation.add(turn)
        turns.append(turn)
    return Tree("t", "t", "e", "train", turns=tuple(turns), samples=(0,), first_observation=steps[0][0])


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("text", ["go", "Wait. That was wrong!", THINKING, "é 🙂", "<|im_end|><eos>"])
def test_a_written_completion_is_its_text_and_the_stop_token(name: str, text: str, chat_tokenizer: Callable[[str], Any]) -> None:
    renderer = Renderer(chat_tokenizer(name))
    ids = renderer.written(text)
    assert ids[-1] == renderer.stop_token_ids[0]
    assert renderer.text(ids) == text
    assert not set(renderer.stop_token_ids) & set(ids[:-1]), "a text cannot end the turn before its end"


@pytest.mark.parametrize("name", TEMPLATES)
def test_what_is_written_after_a_stored_turn_is_what_the_template_shows(name: str, chat_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = chat_tokenizer(name)
    tree = played(tokenizer, [("find it", "look"), ("a fridge", "open fridge")])
    draft = Author(Renderer(tokenizer)).after(tree, "0.1")
    draft.say("it is locked", "I was wrong.")
    draft.repeat("ok.", dataclasses.replace(tree["0.0"], id="0.0 again"))
    if name == "deepseek_r1_distill":  # its generation prompt opens a thought, which it drops from earlier turns
        for turn, texts in zip(draft.added, (["find it", "look", "a fridge", "open fridge", "it is locked"],), strict=False):
            assert turn.prompt_ids == official(tokenizer, texts)
        return
    (segment,) = draft.segments
    assert [turn.id for turn in segment] == ["0.0", "0.1", "0.1~0", "0.0 again"]
    ids, mask, logprobs = segment_ids(segment[:3], trained={"0.1~0"})
    texts = ["find it", "look", "a fridge", "open fridge", "it is locked"]
    before = official(tokenizer, texts)
    assert ids[: len(before)] == before and not any(mask[: len(before)])
    assert all(mask[len(before) :]) and logprobs is None
    assert ids[: len(tree.context_ids("0.1"))] == tuple(tree.context_ids("0.1"))
    last = segment[-1]
    assert last.completion_ids == tree["0.0"].completion_ids and last.authored and last.draw.kind == "authored"
    assert (*ids, *last.prompt_ids) == official(tokenizer, [*texts, "I was wrong.", "ok."])


def test_odd_ids_stay_as_they_were_sampled(chat_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = chat_tokenizer("smollm2")
    tree = played(tokenizer, [("find it", "look")])
    odd = tuple(token for letter in "look" for token in tokenizer.encode(letter, add_special_tokens=False))
    assert odd != tree["0.0"].completion_ids[:-1]
    stop = tree["0.0"].completion_ids[-1:]
    (turn,) = (dataclasses.replace(turn, completion_ids=odd + stop, logprobs=(-1.0,) * (len(odd) + 1)) for turn in tree.turns)
    tree = dataclasses.replace(tree, turns=(turn,))
    draft = Author(Renderer(tokenizer)).after(tree, "0.0")
    draft.repeat("ok.", dataclasses.replace(turn, id="0.1"))
    ids = segment_ids(draft.segments[0]).ids
    assert ids[: len(turn.prompt_ids) + len(odd)] == turn.prompt_ids + odd and ids[-len(odd) - 1 :] == odd + stop


def test_a_turn_that_the_context_holds_already_cannot_be_repeated_under_its_name(chat_tokenizer: Callable[[str], Any]) -> None:
    tree = played(chat_tokenizer("smollm2"), [("find it", "look")])
    with pytest.raises(ValueError, match="twice"):
        Author(Renderer(chat_tokenizer("smollm2"))).after(tree, "0.0").repeat("ok.", tree["0.0"])


def test_a_draft_may_begin_afresh(chat_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = chat_tokenizer("qwen2_5")
    draft = Author(Renderer(tokenizer), [("1+1", "2")]).begin("Count.")
    first = draft.say("2+2", "4")
    draft.say("3+3", "6")
    assert (first.fresh, first.extends, first.authored, first.finish) == ("authored", None, True, "authored")
    messages = [("system", "Count."), ("user", "1+1"), ("assistant", "2"), ("user", "2+2"), ("assistant", "4"), ("user", "3+3")]
    chat = [{"role": role, "content": content} for role, content in messages]
    expected = tokenizer.apply_chat_template(chat, tokenize=True, add_generation_prompt=True, return_dict=False)
    ids = segment_ids(draft.segments[0]).ids
    assert ids[: len(expected)] == tuple(expected)


def test_a_template_that_drops_thinking_cuts_the_draft_into_contexts(chat_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = chat_tokenizer("qwen3")
    tree = played(tokenizer, [("find it", THINKING), ("a fridge", THINKING)])
    draft = Author(Renderer(tokenizer)).after(tree, "0.1")
    thought = draft.say("it is locked", "I was wrong.")
    draft.repeat("ok.", dataclasses.replace(tree["0.0"], id="1.0"))
    draft.repeat("a fridge", dataclasses.replace(tree["0.1"], id="1.1"))
    assert [[turn.id for turn in segment] for segment in draft.segments] == [["0.1~0", "1.0"], ["1.1"]]
    texts = ["find it", "open fridge", "a fridge", "open fridge", "it is locked"]
    assert thought.fresh == "template" and thought.prompt_ids == official(tokenizer, texts)


def test_examples_are_told_again_where_a_context_is_written_afresh(chat_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = chat_tokenizer("qwen3")
    examples = (("find a pear", "look"),)
    tree = played(tokenizer, [("find it", THINKING)], examples=examples)
    draft = Author(Renderer(tokenizer), examples).after(tree, "0.0")
    assert draft.say("no", "I was wrong.").prompt_ids == official(tokenizer, ["find a pear", "look", "find it", "open fridge", "no"])
    with pytest.raises(Mistake, match="other worked examples"):
        Author(Renderer(tokenizer)).after(tree, "0.0").say("no", "I was wrong.")


def test_examples_need_not_be_known_where_contexts_are_appended_to(chat_tokenizer: Callable[[str], Any]) -> None:
    tokenizer = chat_tokenizer("smollm2")
    examples = (("find a pear", "look"),)
    tree = played(tokenizer, [("find it", "look")], examples=examples)
    thought = Author(Renderer(tokenizer)).after(tree, "0.0").say("no", "I was wrong.")
    known = Author(Renderer(tokenizer), examples).after(tree, "0.0").say("no", "I was wrong.")
    assert thought == known and thought.extends == "0.0"
