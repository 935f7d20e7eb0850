"""QLoRA (arXiv:2305.14314): the base weights in 4 bits while an adapter is trained on them, for models that would not fit otherwise.

What is trained is an adapter like any other, and it is served on the base as it is: the engine's weights are not quantised, and the adapter
check compares both with that adapter on that base. So a policy-gradient training sees a little of the quantisation in `log_ratio`, as it
sees another implementation, and `correction` takes it out.
"""

from __future__ import annotations

import importlib.util

import torch
from transformers import BitsAndBytesConfig

from agentloop.errors import Mistake


def check_quantisation(kind: str) -> None:
    """Raises `Mistake` where what a job asks for is not known, or bitsandbytes is not here."""
    if kind not in ("none", "nf4"):
        raise Mistake("unknown quantisation of a training", found=kind, expected="none or nf4")
    if kind != "none" and importlib.util.find_spec("bitsandbytes") is None:
        raise Mistake("training on a base in 4 bits needs bitsandbytes, which is not installed", expected="pip install bitsandbytes")


def quantisation(kind: str, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """How transformers loads the base: normal floats of 4 bits, quantised twice, computed with in `dtype`; None is as it is.

    Raises:
        Mistake: See `check_quantisation`.
    """
    check_quantisation(kind)
    if kind == "none":
        return None
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype)
