"""A scripted policy for arithmetic that may be tried again: often off by one, sometimes no number, and surer the more often it was told."""

import hashlib
import re


def player(prompt_text, request):
    """The number, or something else, by the dice of the prompt and the seed."""
    question = re.findall(r"(\d+(?: [+-] \d+)*) =", prompt_text)[-1]
    right = sum(int(number.replace(" ", "")) for number in re.findall(r"(?:^|[+-] )\d+", question))
    dice = hashlib.sha256(f"{request.seed}/{request.prompt_ids}".encode()).digest()[0] / 256
    if dice < 0.15:
        return "hm"
    told = prompt_text.count("incorrect")
    return str(right if dice > 0.7 - 0.1 * told else right + 1 + told)
