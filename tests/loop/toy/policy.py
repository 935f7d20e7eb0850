"""A scripted policy for the toy: right on a share of the turns that grows with every trained adapter."""

import hashlib
import re


def answer(prompt_text, request):
    """The next number, or a wrong one, decided by the request's seed and adapter alone."""
    shown = int(re.findall(r"user\s+(\d+)", prompt_text)[-1])
    generation = 0 if request.adapter == "base" else int(request.adapter.split("-")[1]) + 1
    dice = hashlib.sha256(f"{request.seed}/{request.prompt_ids}".encode()).digest()[0] / 256
    return str(shown + 1) if dice < 0.6 + 0.15 * generation else str(shown + 7)
