"""A scripted policy for the terse calculator: often a wrong operation, until it has said "oops"; then all over again without mistakes."""

import hashlib
import re

from benchmarks.terse_verifier import judgement

NAMES = {"+": "add", "-": "sub", "*": "mul"}


def answer(prompt_text, request):
    """The next call of the expression, or its result once every operation is done."""
    messages = re.findall(r"<s>(user|assistant)\n(.*?)<end>", prompt_text, re.DOTALL)
    texts = [text for _, text in messages]
    start, *steps = re.findall(r"^\(*\d+|[+*-]\d+", texts[0])
    careful = "oops" in texts
    since = texts[texts.index("oops") :] if careful else texts[1:]
    results = [text for text in since if re.fullmatch(r"-?\d+", text)]
    number = results[-1] if results else start.lstrip("(")
    if len(results) == len(steps):
        return number
    step = steps[len(results)]
    right = NAMES[step[0]]
    dice = hashlib.sha256(f"{request.seed}/{request.prompt_ids}".encode()).digest()[0] / 256
    wrong = next(name for name in NAMES.values() if name != right)
    return f"{right if careful or dice < 0.6 else wrong}({number},{step[1:]})"


def player(prompt_text, request):
    """Plays as before; as a judge it is the verifier of the benchmark."""
    if "The latest action, step" in prompt_text:
        return f"Judgement: {judgement(prompt_text)}"
    return answer(prompt_text, request)
