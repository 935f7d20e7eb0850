r"""Grading of mathematical answers: `is_correct(response, reference)`.

Three steps, each in a module of its own: the final answer is found in the response (`final_answer`), what two answers can be seen to be is
decided without algebra (`answer_form`), and only what is left is asked of math-verify (`algebra`), in a process with a limit of time. What
has no answer, cannot be read or takes too long is wrong, and nothing that a model writes raises.

References are a bare answer (`\frac{1}{2}`, `18`, `[0, 1)`, `\text{Evelyn}`), or a worked solution that ends in one as responses do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agentloop.evaluation.algebra import same_by_algebra
from agentloop.evaluation.answer_form import decide, tidy
from agentloop.evaluation.final_answer import LONGEST, bare, final_answer

__all__ = ["TIMEOUT", "Grade", "classes", "equivalent", "final_answer", "grade", "is_correct"]

TIMEOUT = 5.0
"""Seconds of processor time for one comparison."""

Why = Literal["same", "different", "no answer", "timeout"]


@dataclass(frozen=True, slots=True)
class Grade:
    """What became of a response.

    Attributes:
        correct: Whether its final answer is the reference.
        answer: The final answer as it was written; None where there is none.
        why: "same", "different", "no answer" (a wrong format, a refusal, an answer too long) or "timeout" (not compared in time).
    """

    correct: bool
    answer: str | None
    why: Why


def is_correct(response: str, reference: str, *, timeout: float = TIMEOUT) -> bool:
    """Whether the final answer of `response` is mathematically the same as `reference`.

    Works in any thread; it blocks for at most some seconds, so inside an event loop call it by `asyncio.to_thread`.

    Args:
        response: What a model wrote.
        reference: The right answer.
        timeout: Seconds of processor time for the comparison.

    Raises:
        Mistake: The answers cannot be compared without math-verify, and it is not installed.
    """
    return grade(response, reference, timeout=timeout).correct


def grade(response: str, reference: str, *, timeout: float = TIMEOUT) -> Grade:
    """As `is_correct`, and why."""
    answer = final_answer(response)
    if answer is None:
        return Grade(False, None, "no answer")
    same = _same(answer, _bare_reference(reference), timeout)
    if same is None:
        return Grade(False, answer, "timeout")
    return Grade(same, answer, "same" if same else "different")


def equivalent(answer: str, reference: str, *, timeout: float = TIMEOUT) -> bool:
    """Whether two bare answers are the same; what cannot be compared in time is not. Raises `Mistake` as `is_correct` does."""
    return bool(_same(bare(answer), bare(reference), timeout))


def classes(answers: Sequence[str | None]) -> list[int | None]:
    """The class of equal answers that each belongs to, numbered by first appearance; None (no answer) belongs to none.

    An answer joins the first class whose first member it is equivalent to.
    """
    members: dict[str, int] = {}
    first: list[str] = []
    for answer in answers:
        if answer is None or answer in members:
            continue
        known = next((number for number, other in enumerate(first) if equivalent(answer, other)), None)
        if known is None:
            known = len(first)
            first.append(answer)
        members[answer] = known
    return [None if answer is None else members[answer] for answer in answers]


def _same(answer: str, reference: str, timeout: float) -> bool | None:
    if len(answer) > LONGEST or len(reference) > LONGEST:
        return False
    given, known = tidy(answer), tidy(reference)
    decided = decide(given, known)
    return same_by_algebra(given, known, timeout) if decided is None else decided


def _bare_reference(reference: str) -> str:
    """A reference's own answer where it is a worked solution; itself where it is an answer already."""
    if "\\boxed" in reference or "####" in reference:
        return final_answer(reference) or bare(reference)
    return bare(reference)
