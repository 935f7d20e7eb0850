"""A tiny policy that may try again and does not know how: it imitates a player who is as good on the fifth answer as on the first.

A Llama of 0.3 million parameters over single characters imitates a player of `environments/retry` (two terms) who answers right with
probability `RIGHT`, else a little beside it; told that this was wrong, it says the same again with probability `STUBBORN` and otherwise
draws afresh. Told so whatever it said, such a player is right equally often on every turn: what RISE (arXiv:2407.18219) finds of models
that were not trained to improve on themselves. Behind a wrong answer it is right less often than at first.

The policy falls short of the player: right in 26 % of first answers and 5 % of fifth ones (docs/methods/rise.md), so 300 steps are too few
for what comes after the first answer. It is made once in about two CPU minutes and kept in the cache. It has seen random problems,
whatever their split, like the tiny policy.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import torch
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from agentloop.model.cache import make_once
from agentloop.model.tiny_tokenizer import END, PAD, VOCABULARY, encode_turns, save_tokenizer

LARGEST = 12
"""The largest number of a problem: `environment: {id: retry, terms: 2, largest: 12}`."""
RIGHT = 0.35
STUBBORN = 0.5
TURNS = 5
WRONG = "The answer is incorrect. Please try again. Here is the question: "
IGNORED = -100
SINGLE, STEPS = 220, 300
"""Optimiser steps on first answers alone, which teach the arithmetic, and all steps."""
RATE = 0.01


def retry_folder() -> Path:
    """The folder of the policy, made once and then found in the cache."""
    fingerprint = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    return make_once(f"retry-{fingerprint}", _make)


def play(generator: random.Random, turns: int) -> list[tuple[str, str]]:
    """(observation, answer) turn by turn of a player who is told that every answer is wrong."""
    first, second, sign = generator.randint(1, LARGEST), generator.randint(1, LARGEST), generator.choice((1, -1))
    question = f"{first} {'+' if sign > 0 else '-'} {second} ="
    said: list[tuple[str, str]] = []
    for turn in range(turns):
        if turn and generator.random() < STUBBORN:
            answer = said[-1][1]
        else:
            beside = 0 if generator.random() < RIGHT else generator.choice((-2, -1, 1, 2))
            answer = str(first + sign * second + beside)
        said.append((question if not turn else WRONG + question, answer))
    return said


def _make(folder: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _train(LlamaForCausalLM(_config()))
    model.generation_config.eos_token_id = VOCABULARY[END]
    model.generation_config.pad_token_id = VOCABULARY[PAD]
    model.save_pretrained(folder)
    save_tokenizer(folder)


def _config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=VOCABULARY[END],
        pad_token_id=VOCABULARY[PAD],
    )


def _train(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """Cross-entropy on the answers; Muon for the matrices, AdamW for the rest, as for the tiny policy."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=RATE, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=RATE, weight_decay=0.0, betas=(0.9, 0.95)),
    ]
    generator = random.Random(0)
    model.train()
    for step in range(STEPS):
        ids_BT, labels_BT = _batch(generator, 1, 128) if step < SINGLE else _batch(generator, 2 + step % (TURNS - 1), 20)
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
        loss = functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), labels_BT[:, 1:].flatten(), ignore_index=IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 10) * max(0.02, 1 - step / STEPS)
            optimiser.step()
            optimiser.zero_grad()
    return model.eval()


def _batch(generator: random.Random, turns: int, games: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels of shape (B, T), padded to the right, of games of so many turns."""
    encoded = [encode_turns(play(generator, turns)) for _ in range(games)]
    length = max(len(ids) for ids, _ in encoded)
    ids_BT = torch.full((games, length), VOCABULARY[PAD])
    labels_BT = torch.full((games, length), IGNORED)
    for row, (ids, mask) in enumerate(encoded):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
        labels_BT[row, : len(ids)] = torch.tensor([i if m else IGNORED for i, m in zip(ids, mask, strict=True)])
    return ids_BT, labels_BT


if __name__ == "__main__":
    print(retry_folder())
