"""Makes the tiny policy from scratch: a Llama of 0.7 million parameters imitates mediocre games for about a minute on two cores."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from agentloop.model.tiny_game import make_problem, play
from agentloop.model.tiny_tokenizer import END, PAD, VOCABULARY, encode_turns, save_tokenizer

IGNORED = -100


@dataclass(frozen=True, slots=True)
class TinySettings:
    """All that the policy depends on, besides the code that makes it.

    Attributes:
        seed: Of the weights, the problems and the player.
        mistakes: Probability of a wrong operation at a step; what the policy learns to do, and what it can be trained out of.
        levels: Operations a problem takes at most; each number from 1 on is as frequent.
        steps, batch: Optimiser steps, and games in each.
        learning_rate: Peak rate of both optimisers, at the scale of AdamW.
        hidden, layers, heads: Shape; the head dimension is 32, the smallest that vLLM serves on a CPU.
    """

    seed: int = 0
    mistakes: float = 0.35
    levels: int = 3
    steps: int = 120
    batch: int = 64
    learning_rate: float = 0.01
    hidden: int = 128
    layers: int = 4
    heads: int = 4


def make(folder: Path, settings: TinySettings) -> None:
    """Train and write a transformers folder: safetensors, configuration, tokenizer, chat template. Same settings, same machine: same
    bytes.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # whatever the caller uses: sums are split by thread, so the bytes depend on it
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = _train(LlamaForCausalLM(_config(settings)), settings)
    finally:
        torch.set_num_threads(threads)
    model.generation_config.eos_token_id = VOCABULARY[END]
    model.generation_config.pad_token_id = VOCABULARY[PAD]
    model.save_pretrained(folder)
    save_tokenizer(folder)


def _config(settings: TinySettings) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=settings.hidden,
        intermediate_size=2 * settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        head_dim=settings.hidden // settings.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=VOCABULARY[END],
        pad_token_id=VOCABULARY[PAD],
    )


def _train(model: LlamaForCausalLM, settings: TinySettings) -> LlamaForCausalLM:
    """Cross-entropy on the actions; Muon for the matrices (it needs half the steps of AdamW here), AdamW for the rest; linear decay to
    nearly 0.
    """
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    rate = settings.learning_rate
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.95)),
    ]
    model.train()
    for step, (ids_BT, labels_BT) in enumerate(_batches(settings)):
        now = rate * min(1.0, (step + 1) / 10) * max(0.02, 1 - step / settings.steps)
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
        loss = functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = now
            optimiser.step()
            optimiser.zero_grad()
    return model.eval()


def _batches(settings: TinySettings) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and labels of shape (B, T), padded to the right: games of one level share a batch, and levels take turns."""
    generator = random.Random(settings.seed)
    for step in range(settings.steps):
        level = step % settings.levels + 1
        games = [encode_turns(play(make_problem(generator, level), generator, settings.mistakes)[0]) for _ in range(settings.batch)]
        length = max(len(ids) for ids, _ in games)
        ids_BT = torch.full((len(games), length), VOCABULARY[PAD])
        labels_BT = torch.full((len(games), length), IGNORED)
        for row, (ids, mask) in enumerate(games):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            labels_BT[row, : len(ids)] = torch.tensor([i if m else IGNORED for i, m in zip(ids, mask, strict=True)])
        yield ids_BT, labels_BT
