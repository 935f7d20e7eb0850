"""A GGUF file of a Llama becomes a float32 folder in the Hugging Face layout, tokenizer and chat template included.

The weights are dequantised by the `gguf` package of llama.cpp's authors, and written as they are named and ordered in transformers; this
takes seconds and needs no torch. The tokenizer is built from the vocabulary and merges in the file with the pre-tokenizer that the file
names: transformers' own reading of GGUF leaves that out, so that it splits blanks before digits otherwise than in training, and takes the
wrong end token.

float32 because a dequantised weight is `scale * q + minimum` in float16 parts, which bfloat16 cannot hold; so vLLM, PEFT and the file
agree.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader
    from tokenizers import Tokenizer

CONTROL = 3
"""`tokenizer.ggml.token_type` of control tokens, which are the special ones."""

TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def convert(file: Path, target: Path) -> None:
    """Write the model and the tokenizer of `file` to the existing folder `target`.

    Raises:
        ValueError: The file holds something else than a Llama with a byte-level BPE tokenizer of the "smollm" kind.
    """
    from gguf import GGUFReader
    from safetensors.numpy import save_file

    reader = GGUFReader(str(file))
    config = model_config(reader)
    save_file(read_weights(reader, config), str(target / "model.safetensors"), metadata={"format": "pt"})
    special = {
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": config["eos_token_id"],
        "pad_token_id": config["pad_token_id"],
    }
    _write_json(target / "config.json", config)
    _write_json(target / "generation_config.json", special)
    read_tokenizer(reader).save(str(target / "tokenizer.json"))
    _write_json(target / "tokenizer_config.json", tokenizer_config(reader))


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _field(reader: GGUFReader, key: str) -> Any:
    field = reader.fields.get(key)
    if field is None:
        raise ValueError(f"the GGUF file has no {key}")
    return field.contents()


def model_config(reader: GGUFReader) -> dict[str, Any]:
    """`config.json` of a Llama, from the file's own record.

    Raises:
        ValueError: The architecture is not "llama".
    """
    architecture = _field(reader, "general.architecture")
    if architecture != "llama":
        raise ValueError(f"architecture {architecture!r} in a GGUF file, expected 'llama'")
    width, heads = _field(reader, "llama.embedding_length"), _field(reader, "llama.attention.head_count")
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": _field(reader, "llama.vocab_size"),
        "hidden_size": width,
        "intermediate_size": _field(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _field(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _field(reader, "llama.attention.head_count_kv"),
        "head_dim": width // heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": _field(reader, "llama.context_length"),
        "rms_norm_eps": float(f"{_field(reader, 'llama.attention.layer_norm_rms_epsilon'):.6g}"),  # stored in float32
        "rope_parameters": {"rope_type": "default", "rope_theta": _field(reader, "llama.rope.freq_base")},
        "tie_word_embeddings": tied,
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id"),
        "pad_token_id": _field(reader, "tokenizer.ggml.padding_token_id"),
    }


def read_weights(reader: GGUFReader, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """All weights in float32 under the names of transformers' Llama; matrices have shape (out, in)."""
    import numpy as np
    from gguf import dequantize

    weights = {}
    for tensor in reader.tensors:
        name = hugging_face_name(tensor.name)
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if name.endswith("q_proj.weight"):
            values = unpermute(values, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            values = unpermute(values, config["num_key_value_heads"])
        weights[name] = np.ascontiguousarray(values)
    return weights


def hugging_face_name(name: str) -> str:
    """The name in transformers of a tensor in a GGUF file; raises `ValueError` for one that a Llama does not have."""
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    match name.split("."):
        case ["blk", layer, part, "weight"] if part in LAYER_NAMES:
            return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"
    raise ValueError(f"tensor {name!r} in a GGUF file is not part of a Llama")


def unpermute(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key matrix (heads * size, in) from interleaved rotary pairs (GGUF) to two halves (transformers)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def read_tokenizer(reader: GGUFReader) -> Tokenizer:
    """The byte-level BPE tokenizer in the file: digits one by one, then GPT-2's split, as "smollm" was trained.

    Raises:
        ValueError: The vocabulary is of another kind.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    kind = (_field(reader, "tokenizer.ggml.model"), _field(reader, "tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"tokenizer of kind {kind} in a GGUF file, expected ('gpt2', 'smollm')")
    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens")
    merges = [(left, right) for left, right in (merge.split(" ") for merge in _field(reader, "tokenizer.ggml.merges"))]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types: list[int] = _field(reader, "tokenizer.ggml.token_type")
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]
    )
    return tokenizer


def tokenizer_config(reader: GGUFReader) -> dict[str, Any]:
    """`tokenizer_config.json`: special tokens, the longest context and the chat template that the authors published."""
    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[_field(reader, "tokenizer.ggml.bos_token_id")],
        "eos_token": tokens[_field(reader, "tokenizer.ggml.eos_token_id")],
        "pad_token": tokens[_field(reader, "tokenizer.ggml.padding_token_id")],
        "unk_token": tokens[_field(reader, "tokenizer.ggml.unknown_token_id")],
        "model_max_length": _field(reader, "llama.context_length"),
        "clean_up_tokenization_spaces": False,
        "chat_template": _field(reader, "tokenizer.chat_template"),
    }
