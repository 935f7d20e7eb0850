"""The tiny policy's tokenizer: one id a printable character, and four special tokens that make up its chat template."""

from __future__ import annotations

import string
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, END = "<|pad|>", "<|unknown|>", "<|end|>"
ROLES = ("system", "user", "assistant")
SPECIAL = (PAD, UNKNOWN, END, *(f"<|{role}|>" for role in ROLES))
CHARACTERS = string.digits + string.ascii_letters + string.punctuation + " \n"
VOCABULARY = {token: index for index, token in enumerate((*SPECIAL, *CHARACTERS))}

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}{{ raise_exception('unknown role') }}{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer over `VOCABULARY`; every text without control or foreign characters comes back unchanged from its ids."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[f"<|{role}|>" for role in ROLES],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def save_tokenizer(folder: Path) -> None:
    """Write `tokenizer.json`, its configuration and the chat template into the folder."""
    make_tokenizer().save_pretrained(folder)


def encode_turns(turns: list[tuple[str, str]]) -> tuple[list[int], list[int]]:
    """Ids of a game as the chat template shows it, and a mask that is 1 on the actions and the token that ends each."""
    ids: list[int] = []
    mask: list[int] = []
    for observation, action in turns:
        asked = [VOCABULARY["<|user|>"], *map(VOCABULARY.__getitem__, observation), VOCABULARY[END], VOCABULARY["<|assistant|>"]]
        answered = [*map(VOCABULARY.__getitem__, action), VOCABULARY[END]]
        ids += asked + answered
        mask += [0] * len(asked) + [1] * len(answered)
    return ids, mask
