"""A Llama of random weights, made in a second, for tests of what training does rather than of what it learns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from agentloop.dataset.preference_row import PreferenceRow
from agentloop.dataset.preference_schema import PREFERENCES
from agentloop.dataset.row import Row
from agentloop.dataset.schema import ROWS
from agentloop.dataset.store import write_rows
from agentloop.training.job import TrainingJob
from tests.training.random_rows import VOCABULARY


@pytest.fixture(scope="session")
def random_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "random-llama"
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = ["<s>", "</s>", *map(chr, range(33, 33 + VOCABULARY - 2))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    return folder


@pytest.fixture
def make_job(random_model: Path, tmp_path: Path) -> Callable[..., TrainingJob]:
    """A job over the random model and the given rows, on the CPU; keywords change it."""

    def make(rows: Sequence[Row] | Sequence[PreferenceRow], **changes: object) -> TrainingJob:
        path = tmp_path / f"rows-{len(list(tmp_path.iterdir()))}.parquet"
        write_rows(path, rows, form=PREFERENCES if rows and isinstance(rows[0], PreferenceRow) else ROWS)
        values: dict[str, object] = {
            "model": str(random_model),
            "model_name": "random",
            "rows": (str(path),),
            "output": str(tmp_path / "adapter"),
            "rank": 4,
            "alpha": 8,
            "learning_rate": 1e-2,
            "batch_size": 4,
            "device": "cpu",
            "warmup": 0.0,
            "scheduler": "constant",
            "timeout": 240.0,
        }
        return TrainingJob(**{**values, **changes})  # type: ignore[arg-type]

    return make
