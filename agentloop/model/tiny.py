"""The tiny policy: a Llama of 0.7 million parameters that plays the terse calculator at 20 to 50 %, made in about a minute.

It is the fruit fly of this project: whatever claims to learn is tested on it, through the real engine, trainer and loop. Success lies
where it does because the policy imitates a player who picks the wrong operation now and then; one round of self-imitation weeds that
out. Importing this module imports no torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from agentloop.model.cache import make_once

SOURCES = ("tiny_game.py", "tiny_tokenizer.py", "tiny_train.py")
"""Files that decide what the policy is; an edit of one makes another policy."""


def tiny_folder(*, seed: int = 0) -> Path:
    """The folder of the tiny policy of this seed, made once and then found in the cache.

    A transformers folder (safetensors, `tokenizer.json`, chat template) that vLLM serves.

    Raises:
        WaitedTooLong: Another process is making it and does not finish.
    """
    return make_once(f"tiny-{seed}-{_fingerprint()}", lambda folder: _make(folder, seed))


def _make(folder: Path, seed: int) -> None:
    from agentloop.model.tiny_train import TinySettings, make

    make(folder, dataclasses.replace(TinySettings(), seed=seed))


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:12]
