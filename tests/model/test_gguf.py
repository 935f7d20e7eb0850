"""A GGUF file and what is made of it hold the same weights and tokens; held against transformers' own reader."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from agentloop.model import wheel
from agentloop.model.gguf import convert, hugging_face_name, unpermute

HIDDEN, HEADS, KEY_HEADS, INNER = 64, 4, 2, 96
SIZE = HIDDEN // HEADS
PIECES = ["Ġ", "a", "b", "1", "3", "ĠĠ", "Ġa", "ab", "Ċ"]
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *PIECES]


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp orders them, written out: its rows 2i and 2i + 1 of a head are rows i and i + half of transformers."""
    out = np.empty_like(weight)
    size = weight.shape[0] // heads
    for head in range(heads):
        for i in range(size // 2):
            out[head * size + 2 * i] = weight[head * size + i]
            out[head * size + 2 * i + 1] = weight[head * size + size // 2 + i]
    return out


def random_weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {
        "model.embed_tokens.weight": (len(TOKENS), HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "model.layers.0.input_layernorm.weight": (HIDDEN,),
        "model.layers.0.post_attention_layernorm.weight": (HIDDEN,),
        "model.layers.0.self_attn.q_proj.weight": (HIDDEN, HIDDEN),
        "model.layers.0.self_attn.k_proj.weight": (KEY_HEADS * SIZE, HIDDEN),
        "model.layers.0.self_attn.v_proj.weight": (KEY_HEADS * SIZE, HIDDEN),
        "model.layers.0.self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        "model.layers.0.mlp.gate_proj.weight": (INNER, HIDDEN),
        "model.layers.0.mlp.up_proj.weight": (INNER, HIDDEN),
        "model.layers.0.mlp.down_proj.weight": (HIDDEN, INNER),
    }
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    whole = random.integers(-126, 127, size=(INNER, HIDDEN)).astype(np.float32)
    whole[:, ::32] = 127  # the largest of each block of 32 sets its scale to 1, so that eight bits lose nothing
    weights["model.layers.0.mlp.gate_proj.weight"] = whole
    return weights


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    part = name.removeprefix("model.layers.0.").removesuffix(".weight")
    return f"blk.0.{GGUF_NAMES[part]}.weight"


def write_file(path: Path, weights: dict[str, np.ndarray], *, architecture: str = "llama", pre: str = "smollm") -> None:
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_uint32(f"{architecture}.vocab_size", len(TOKENS))
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * len(PIECES))
    writer.add_token_merges(["Ġ Ġ", "Ġ a", "a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}")
    for name, weight in weights.items():
        if name.endswith("q_proj.weight"):
            weight = interleave(weight, HEADS)
        elif name.endswith("k_proj.weight"):
            weight = interleave(weight, KEY_HEADS)
        if name.endswith("gate_proj.weight"):
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(gguf_name(name), gguf.quantize(weight, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    write_file(folder / "model.gguf", random_weights())
    target = folder / "out"
    target.mkdir()
    convert(folder / "model.gguf", target)
    return target


def test_every_weight_comes_back_under_its_name_and_in_its_order(converted: Path) -> None:
    from transformers import AutoModelForCausalLM

    state = AutoModelForCausalLM.from_pretrained(converted, dtype="auto").state_dict()
    expected = random_weights()
    assert set(state) == {*expected, "lm_head.weight"}
    for name, weight in expected.items():
        assert str(state[name].dtype) == "torch.float32"
        np.testing.assert_array_equal(state[name].numpy(), weight, err_msg=name)
    np.testing.assert_array_equal(state["lm_head.weight"].numpy(), expected["model.embed_tokens.weight"])


def test_transformers_own_reader_finds_the_same_weights_and_logits(converted: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    ours = AutoModelForCausalLM.from_pretrained(converted, dtype="auto")
    theirs = AutoModelForCausalLM.from_pretrained(str(converted.parent), gguf_file="model.gguf", dtype=torch.float32)
    assert [name for name, weight in theirs.state_dict().items() if not torch.equal(weight, ours.state_dict()[name])] == []
    ids = torch.tensor([[1, 4, 9, 5, 2]])
    torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, rtol=1e-5, atol=1e-5)


def test_the_configuration_says_what_the_file_said(converted: Path) -> None:
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(converted)
    assert config.model_type == "llama" and config.tie_word_embeddings and config.rms_norm_eps == 1e-5
    assert (config.hidden_size, config.head_dim, config.num_key_value_heads) == (HIDDEN, SIZE, KEY_HEADS)
    assert config.rope_parameters["rope_theta"] == 10000.0
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, 2, 2)
    assert not hasattr(config, "quantization_config")


def test_blanks_before_a_digit_stay_together_as_in_training(converted: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a  31 ab")) == ["a", "ĠĠ", "3", "1", "Ġa", "b"]
    assert tokenizer.decode(tokenizer.encode("ab  31 ab\n")) == "ab  31 ab\n"


def test_special_tokens_and_template_are_the_files(converted: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(converted)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<|im_start|>", "<|im_end|>", "<|im_end|>")
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], return_dict=True)["input_ids"]
    assert ids == [1, TOKENS.index("ab"), 2]
    assert 2 not in tokenizer.encode("<|im_end|>", split_special_tokens=True)


def test_conversion_needs_no_torch(tmp_path: Path) -> None:
    write_file(tmp_path / "model.gguf", random_weights())
    (tmp_path / "out").mkdir()
    program = (
        "import sys; from pathlib import Path; from agentloop.model.gguf import convert; "
        f"convert(Path({str(tmp_path / 'model.gguf')!r}), Path({str(tmp_path / 'out')!r})); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("settings", "says"), [({"architecture": "mamba"}, "architecture 'mamba'"), ({"pre": "qwen2"}, r"kind \('gpt2', 'qwen2'\)")]
)
def test_another_kind_of_model_is_refused(tmp_path: Path, settings: dict[str, str], says: str) -> None:
    write_file(tmp_path / "model.gguf", random_weights(), **settings)
    with pytest.raises(ValueError, match=says):
        convert(tmp_path / "model.gguf", tmp_path)


def test_a_tensor_that_no_llama_has_is_refused() -> None:
    assert hugging_face_name("blk.12.ffn_up.weight") == "model.layers.12.mlp.up_proj.weight"
    with pytest.raises(ValueError, match=r"blk\.0\.attn_q\.bias"):
        hugging_face_name("blk.0.attn_q.bias")


def test_unpermute_undoes_the_interleaving() -> None:
    weight = np.arange(HIDDEN * 3, dtype=np.float32).reshape(HIDDEN, 3)
    np.testing.assert_array_equal(unpermute(interleave(weight, HEADS), HEADS), weight)


@pytest.mark.slow
def test_the_real_model_talks_sense_and_stops() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = wheel.from_wheel("smollm2-135m").path
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    said = model.generate(**inputs, max_new_tokens=24, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(said)
    assert said[-1] == tokenizer.eos_token_id
