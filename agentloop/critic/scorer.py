"""A scorer on transformers: a sequence-classification model, read as a reward model or as a classifier.

A reward model has one output, and its score is that number. A classifier's score is the probability of its last class (of its only one, by
the logistic function), and its label the name of the likeliest. Chats are rendered with the model's own chat template, in which text of an
environment cannot forge a special token; a model without one reads the messages' texts, a line apart. A chat that is too long loses
exchanges from its middle: the task and the end stay.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from agentloop.critic.scoring import Score
from agentloop.engine.base import EngineFailure
from agentloop.errors import Mistake
from agentloop.trace.template import Message

Kind = Literal["classifier", "reward"]

BATCH_TOKENS = 8192
"""Most tokens, padding included, that are read at once."""
BATCH_ROWS = 64


class TransformersScorer:
    """Scores chats with a model in this process, in a thread. Make it with `open`.

    Args:
        model: A sequence-classification model.
        tokenizer: Its tokenizer.
        name: What to call it.
        kind: How its outputs are read; None reads one output as a reward and several as classes.

    Raises:
        Mistake: A reward model with more than one output.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str, kind: Kind | None = None) -> None:
        from agentloop.trace.render import Renderer

        outputs = int(model.config.num_labels)
        self._kind: Kind = kind or ("reward" if outputs == 1 else "classifier")
        if self._kind == "reward" and outputs != 1:
            raise Mistake(f"{name} is no reward model: it has {outputs} outputs", expected="one output, or scoring: classifier")
        self._model = model
        self._tokenizer = tokenizer
        self._renderer = Renderer(tokenizer) if getattr(tokenizer, "chat_template", None) else None
        self._padding = model.config.get_text_config().pad_token_id
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._longest = min(int(positions or 1 << 20), int(tokenizer.model_max_length or 1 << 20))
        self._lock = threading.Lock()
        self.name = name

    @classmethod
    async def open(cls, path: Path, *, name: str, kind: Kind | None = None) -> TransformersScorer:
        """Load the model of a folder. Raises `EngineFailure` of kind "memory" or "request", and `Mistake`."""
        model, tokenizer = await asyncio.to_thread(_load, path)
        return cls(model, tokenizer, name=name, kind=kind)

    async def score(self, chats: Sequence[Sequence[Message]]) -> list[Score]:
        """One score a chat. Raises `EngineFailure`."""
        return await asyncio.to_thread(self._score, chats)

    def _score(self, chats: Sequence[Sequence[Message]]) -> list[Score]:
        import torch

        fitted = [self._fitted(chat) for chat in chats]
        scores: dict[int, Score] = {}
        with self._lock:  # trees come from several threads, and the model is one
            # Decoder models find a row's last token by the padding id; without one they read a row at a time.
            for batch in _batches([len(ids) for ids, _ in fitted], most=BATCH_ROWS if self._padding is not None else 1):
                try:
                    values = self._values([fitted[index][0] for index in batch])
                except torch.OutOfMemoryError as error:
                    raise EngineFailure("memory", f"scoring model {self.name} ran out of memory: {error}") from error
                for index, (value, label) in zip(batch, values, strict=True):
                    ids, left_out = fitted[index]
                    scores[index] = Score(value, label, len(ids), left_out)
        return [scores[index] for index in range(len(chats))]

    def _fitted(self, chat: Sequence[Message]) -> tuple[list[int], int]:
        """Ids of the chat with as many of its last exchanges as fit behind the first message, and how many exchanges are left out."""
        exchanges = (len(chat) - 2) // 2
        for left_out in range(exchanges + 1):
            ids = self._ids([chat[0], *chat[1 + 2 * left_out :]])
            if len(ids) <= self._longest:
                return ids, left_out
        raise EngineFailure("context", f"a task and one action do not fit the {self._longest} tokens of scoring model {self.name}")

    def _ids(self, chat: Sequence[Message]) -> list[int]:
        if self._renderer is not None:
            return list(self._renderer.render(chat, generate=False))
        text = "\n".join(str(message.content) for message in chat)
        return list(self._tokenizer.encode(text, split_special_tokens=True))

    def _values(self, rows: Sequence[Sequence[int]]) -> list[tuple[float, str | None]]:
        """Score and label of each row of ids; right-padded, so that positions are those of the row alone."""
        import torch

        device, length = self._model.device, max(map(len, rows))
        ids_BT = torch.full((len(rows), length), self._padding or 0, dtype=torch.long)
        mask_BT = torch.zeros((len(rows), length), dtype=torch.long)
        for index, row in enumerate(rows):
            ids_BT[index, : len(row)] = torch.tensor(row)
            mask_BT[index, : len(row)] = 1
        with torch.inference_mode():
            logits_BK = self._model(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device)).logits.float().cpu()
        if self._kind == "reward":
            return [(float(value), None) for value in logits_BK[:, 0]]
        names = self._model.config.id2label
        if logits_BK.shape[1] == 1:
            return [(value, names[0] if value >= 0.5 else f"not {names[0]}") for value in logits_BK[:, 0].sigmoid().tolist()]
        shares_BK = logits_BK.softmax(dim=-1)
        return [(float(shares_K[-1]), str(names[int(shares_K.argmax())])) for shares_K in shares_BK]


def _batches(lengths: Sequence[int], *, most: int) -> list[list[int]]:
    """Indices of rows in batches of similar length: at most `most` rows and `BATCH_TOKENS` ids, padding included; one row always fits."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        last = batches[-1] if batches else []
        if last and len(last) < most and lengths[last[0]] * (len(last) + 1) <= BATCH_TOKENS:
            last.append(index)
        else:
            batches.append([index])
    return batches


def _load(path: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from agentloop.engine.local import best_device

    try:
        model = AutoModelForSequenceClassification.from_pretrained(path, local_files_only=True).to(best_device()).eval()
        return model, AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise EngineFailure("memory", f"the scoring model in {path} does not fit into memory: {error}") from error
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise EngineFailure("request", f"transformers cannot load a scoring model from {path}: {error}") from error
