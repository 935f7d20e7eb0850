"""Tiny seeded models and adapters for tests: a random Llama that every engine can serve, made in a second."""

from __future__ import annotations

import string
from pathlib import Path

VOCABULARY = ["<pad>", "<s>", "<end>", *sorted(set(string.printable) - {"\x0b", "\x0c"})]
PAD_ID, BOS_ID, END_ID = 0, 1, 2


def make_model(folder: Path, *, seed: int = 0, layers: int = 4, max_positions: int = 512) -> Path:
    """A Llama of hidden size 128 with head dimension 32 over single characters; the same seed gives the same weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=max_positions,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=END_ID,
        initializer_range=0.3,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    _make_tokenizer().save_pretrained(folder)
    return folder


def _make_tokenizer():
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(VOCABULARY)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="<end>")
    said = "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}<end>{% endfor %}"
    fast.chat_template = said + "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
    return fast


def make_adapter(folder: Path, model_path: Path, *, seed: int, rank: int = 8, scale: float = 0.2) -> Path:
    """A LoRA adapter on all linear layers whose B is not zero, so that it changes every log-probability."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(model_path)
    peft = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, scale)
    peft.save_pretrained(folder, safe_serialization=True)
    return folder
