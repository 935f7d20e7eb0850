"""Why a vLLM server died: its log and exit status turned into one sentence that says what to do."""

from __future__ import annotations

import re
from pathlib import Path

TAIL_LINES = 25

CAUSES: tuple[tuple[str, str, str], ...] = (
    (r"address already in use|Errno 98", "port", "its port is in use by another process; set engine.port to another, or leave it out"),
    (
        r"KV cache is needed, which is larger than the available|No available memory for the cache blocks",
        "memory",
        "the longest context does not fit into the memory for its cache; set engine.max_model_len lower or engine.memory_gib higher",
    ),
    (
        r"is greater than the derived max_model_len|max_model_len.{0,80}greater than",
        "context",
        "engine.max_model_len is longer than the model's own limit",
    ),
    (
        r"out of memory|OutOfMemory|MemoryError|can't allocate memory|Available memory on node|Free memory on device",
        "memory",
        "the model does not fit into memory; take a smaller model or dtype, or set engine.memory_gib or engine.gpu_memory_utilization"
        " lower",
    ),
    (r"No module named '?vllm", "request", "vLLM is not installed for this interpreter; install it, or set engine.python or engine.kind"),
    (
        r"Cannot find any model weights|no file named|SafetensorError|HeaderTooLarge|Error while deserializing",
        "request",
        "the model's weights are missing or damaged",
    ),
    (
        r"does not recognize this architecture|are not supported for now|Can't load the configuration|not a valid JSON|JSONDecodeError",
        "request",
        "vLLM cannot serve this model: its config.json is damaged or of an unknown architecture",
    ),
    (r"unrecognized arguments|error: argument", "request", "vLLM does not know one of the arguments in engine.arguments"),
)
"""Pattern in the log, kind of failure, and what it means. The first that is found counts."""


def last_lines(log_path: Path, offset: int = 0, count: int = TAIL_LINES) -> str:
    """The last lines of the log after `offset` bytes, the newest start's only; "" where there is no log."""
    return "\n".join(_text(log_path, offset).rstrip().splitlines()[-count:])


def why_it_died(log_path: Path, offset: int, status: int | None) -> tuple[str, str]:
    """Kind of failure and its sentence, from the log after `offset` bytes and the exit status (128 + signal for a signal)."""
    text = _text(log_path, offset)
    for pattern, kind, sentence in CAUSES:
        if re.search(pattern, text, re.IGNORECASE):
            return kind, sentence
    if status in (137, -9):
        return "crash", "it was killed (signal 9), by somebody or by the system for want of memory"
    return "crash", f"exit status {status}"


def _text(log_path: Path, offset: int) -> str:
    try:
        with log_path.open("rb") as log:
            log.seek(offset)
            return log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
