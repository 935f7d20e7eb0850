"""Small byte-level BPE tokenizers with the chat templates (as TRL's package ships them) and control tokens of real models; small trees."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentloop.trace.tree import Draw, Tree, Turn

SPECIAL = {
    "smollm2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"],
    "qwen2_5": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "qwen3": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "qwen3_instruct_2507": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"],
    "llama3_2": ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"],
    "gemma": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
    "gemma3": ["<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"],
    "phi3": ["<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
    "deepseek_r1_distill": ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>"],
}
"""Control tokens of each template; of two or more, the first with "begin", "bos" or "<s>" opens a text."""

MARKUP = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
"""Added tokens that are not special, as Qwen has them."""

EOS = {
    "smollm2": "<|im_end|>",
    "qwen2_5": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "qwen3_instruct_2507": "<|im_end|>",
    "llama3": "<|end_of_text|>",
    "llama3_2": "<|eot_id|>",
    "gemma": "<eos>",
    "gemma3": "<eos>",
    "phi3": "<|endoftext|>",
    "deepseek_r1_distill": "<｜end▁of▁sentence｜>",
}

END_OF_TURN = EOS | {"llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "gemma3": "<end_of_turn>", "phi3": "<|end|>"}

SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

TEXT = """You are in a kitchen. user assistant system model tool You see a fridge, a table and a sink.\n\n  > take apple from table
{"name": "calculator", "arguments": {"expression": "(338 - 43) * 49"}}\n\tgo north; go south\n\nThe answer is 42.\n  \n    look around\n"""


def template(name: str) -> str:
    """Source of a model's chat template."""
    import trl

    if name == "smollm2":
        return SMOLLM2_TEMPLATE
    return (Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


@functools.cache
def tokenizer(name: str) -> Any:
    """A tokenizer of some 500 byte-level tokens (merges across white space included) with the model's control tokens and template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator([TEXT] * 3, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False))
    core.add_special_tokens([AddedToken(token, special=True, rstrip=name == "phi3" and token != "<s>") for token in SPECIAL[name]])
    if name.startswith(("qwen3", "deepseek")):
        core.add_tokens([AddedToken(token, special=False, normalized=False) for token in MARKUP])
    bos = next((token for token in SPECIAL[name] if any(word in token for word in ("begin", "bos", "<s>"))), None)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=bos, eos_token=EOS[name], pad_token=SPECIAL[name][0], chat_template=template(name)
    )


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Hundreds of small files are written here; a power cut is not among what is tested, and a busy disk would make it minutes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session")
def chat_tokenizer() -> Callable[[str], Any]:
    """Makes the tokenizer of a template by name."""
    return tokenizer


@pytest.fixture(scope="session")
def end_of_turn() -> dict[str, str]:
    """The token that ends an assistant's turn, by name of the template."""
    return END_OF_TURN


@pytest.fixture(scope="session")
def make_tree() -> Callable[..., Tree]:
    """Makes a tree (or a fragment) of two-turn episodes, each ending with success at reward 1; content depends on the arguments alone."""

    def make(name: str = "t0", samples: tuple[int, ...] = (0,), *, tokens: int = 4, seconds: float = 0.5) -> Tree:
        turns = []
        for sample in samples:
            base = 100 * sample
            draw = Draw("actor-000-abcdef", temperature=0.7, seed=sample)
            turns += [
                Turn(
                    id=f"{sample}.0",
                    parent=None,
                    extends=None,
                    fresh="start",
                    prompt_ids=tuple(range(base, base + tokens)),
                    completion_ids=tuple(range(base + 50, base + 50 + tokens)),
                    logprobs=tuple(-0.1 * index - sample for index in range(tokens)),
                    text="look",
                    draw=draw,
                    action="look",
                    observation="a fridge",
                    info={"score": sample},
                    seconds=(seconds, seconds / 2),
                    cached_tokens=2,
                ),
                Turn(
                    id=f"{sample}.1",
                    parent=f"{sample}.0",
                    extends=f"{sample}.0",
                    prompt_ids=(7, 8),
                    completion_ids=(9,),
                    logprobs=(-1.5,),
                    text="open fridge",
                    draw=draw,
                    observation="done",
                    reward=1.0,
                    done=True,
                    success=True,
                    seconds=(seconds, 0.0),
                    cached_tokens=3,
                ),
            ]
        return Tree(
            f"000/trees/{name}", name, "kitchen", "train", turns=tuple(turns), samples=samples, task_data={"goal": "fridge"}, seed=11
        )

    return make
