r"""Grading of mathematical answers: agreement with labels, garbage and hostile LaTeX, and every place it may be called from."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentloop.errors import Mistake
from agentloop.evaluation import algebra
from agentloop.evaluation.answer_form import decide, quantity, tidy
from agentloop.evaluation.math import classes, equivalent, final_answer, grade, is_correct
from tests.evaluation.math_cases import CASES, HELD_OUT, Case

ALL: list[Case] = [case for cases in CASES.values() for case in cases] + HELD_OUT

PIECES = re.split(" ", r"\frac \boxed{ } \sqrt { ^ _ \left( \right] $ \text{ 1 x \infty \cup answer is #### 0 / % \\ & =")
NEEDS_ALGEBRA = ("\\boxed{x^2 + 2x + 1}", "(x+1)^2")

HOSTILE = {
    "a tower of powers": r"\boxed{9^{9^{9^{9}}}}",
    "a factorial": r"\boxed{((10^6)!)!}",
    "a long sum": r"\boxed{\sum_{n=1}^{10^{12}} \frac{\sin n}{n!}}",
    "nested fractions": r"\boxed{" + r"\frac{1}{1+" * 60 + "x" + "}" * 60 + "}",
    "an expansion": r"\boxed{(x+y+z+w)^{200}}",
}
ENDLESS = {
    "open braces": "\\boxed" + "{" * 100_000,
    "boxes in boxes": "\\boxed{" * 20_000 + "1" + "}" * 20_000,
    "boxes": "".join(f"\\boxed{{{number}}} and " for number in range(20_000)),
    "dollars": "$" * 100_000,
    "digits": "9" * 100_000,
    "an exponent": "1e999999999",
    "brackets": "\\(" * 50_000,
    "commas": "1," * 50_000,
    "answers": "the answer is " * 10_000,
    "stars": "answer" + "*" * 50_000,
    "minus signs": "-" * 100_000 + "5",
}


def test_it_agrees_with_the_labels_on_at_least_99_percent() -> None:
    wrong = [case for case in ALL if is_correct(case[0], case[1]) != case[2]]
    assert len(ALL) > 350 and len(wrong) <= 0.01 * len(ALL), wrong


@pytest.mark.parametrize("kind", CASES)
def test_every_kind_has_both_right_and_wrong_answers(kind: str) -> None:
    labels = [label for _, _, label in CASES[kind]]
    assert len(labels) >= 10 and (False in labels) and (True in labels or kind in ("several", "refusals"))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_latex_ends_within_its_limit_and_is_wrong(name: str) -> None:
    began = time.process_time()
    found = grade(HOSTILE[name], r"x^2+\sqrt{2}", timeout=0.3)
    assert not found.correct and found.why == "timeout"
    assert time.process_time() - began < 0.3, "the work is done in another process"
    assert is_correct(*NEEDS_ALGEBRA), "and the next answer is compared as before"


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_text_is_read_in_little_time(name: str) -> None:
    began = time.process_time()
    assert not is_correct(ENDLESS[name], "17")
    assert time.process_time() - began < 10, "linear, where a careless pattern takes minutes"


def test_a_process_that_does_not_come_back_is_killed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_correct(*NEEDS_ALGEBRA)
    monkeypatch.setattr(algebra, "PATIENCE", 0.0)
    assert algebra.same_by_algebra("x", "y", 1.0) is None
    monkeypatch.undo()
    assert is_correct(*NEEDS_ALGEBRA)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(
        st.text(max_size=60),
        st.text(alphabet=r"\{}[]()$^_&#%.,-+=/<>0123456789 abxiyπ√∞½\n", max_size=60),
        st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join),
    ),
    st.sampled_from(["18", r"\frac{1}{2}", "x+1", "[0, 1)", r"\text{Evelyn}", "", "\\boxed{", "1,-2"]),
)
def test_garbage_is_graded_and_never_raises(response: str, reference: str) -> None:
    found = grade(response, reference, timeout=1)
    assert found.correct == (found.why == "same") and (found.answer is None) == (found.why == "no answer")
    assert grade(f"\\boxed{{{response}}}", reference, timeout=1).correct in (True, False)


@settings(deadline=None)
@given(st.integers(-(10**9), 10**9), st.integers(1, 999))
def test_every_spelling_of_a_number_is_that_number_and_no_other(whole: int, part: int) -> None:
    spellings = [
        f"{whole}",
        f"{whole:,}",
        f"{whole}.0",
        f"${whole}$",
        f"\\boxed{{{whole}}}",
        f"The answer is {whole:,} apples.",
        f"#### {whole}",
    ]
    for spelling in spellings:
        assert is_correct(spelling, str(whole)), spelling
        assert not is_correct(spelling, str(whole + part)), spelling
    sign = "-" if whole < 0 else ""
    assert is_correct(f"\\boxed{{{sign}\\frac{{{abs(whole) * part}}}{{{part}}}}}", str(whole))


@settings(deadline=None)
@given(st.sampled_from(ALL))
def test_what_is_decided_without_algebra_is_decided_both_ways_alike(case: Case) -> None:
    answer = final_answer(case[0])
    if answer is None:
        return
    one, other = tidy(answer), tidy(case[1])
    if quantity(one) is not None and quantity(other) is not None:
        assert decide(one, other) == decide(other, one)


def test_decimals_are_exact_and_a_fraction_that_does_not_end_needs_six_places() -> None:
    assert equivalent("0.1", "1/10") and not equivalent("0.10000001", "0.1")
    assert equivalent("0.333333", "1/3") and not equivalent("0.33333", "1/3") and not equivalent("0.333334", "1/3")
    assert equivalent("0.6666667", "2/3") and not equivalent("0.0000674", "0.0000672")


def test_answers_fall_into_classes_of_equal_ones() -> None:
    answers = ["1/2", None, "0.5", "x+1", "2", "1+x", "\\frac{1}{2}", None, "50\\%", "3"]
    assert classes(answers) == [0, None, 0, 1, 2, 1, 0, None, 0, 3]
    assert classes([]) == [] and classes([None]) == [None]


def test_a_worked_solution_can_be_the_reference() -> None:
    assert is_correct("The answer is 18.", "She has 16 - 7 = 9 eggs, and 9 * 2 = 18.\n#### 18")
    assert is_correct("\\boxed{\\frac12}", "Rewrite it as $2x = 1$, so $x = \\boxed{\\frac{1}{2}}$.")


async def test_it_works_inside_an_event_loop_and_in_its_threads() -> None:
    assert is_correct(*NEEDS_ALGEBRA)
    found = await asyncio.gather(*(asyncio.to_thread(is_correct, f"\\boxed{{(x+{n})^2}}", f"x^2+{2 * n}x+{n * n}") for n in range(8)))
    assert found == [True] * 8


def test_it_works_from_many_threads_at_once() -> None:
    found: list[bool] = []

    def ask(number: int) -> None:
        found.append(is_correct(f"\\boxed{{(x+{number})^2}}", f"x^2+{2 * number}x+{number * number}"))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [True] * 12


def test_a_process_that_ends_leaves_none_behind() -> None:
    program = (
        "import psutil\nfrom agentloop.evaluation.math import is_correct\n"
        f"assert is_correct(*{NEEDS_ALGEBRA!r})\nprint(*[child.pid for child in psutil.Process().children(recursive=True)])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    pids = [int(word) for word in done.stdout.split()]
    assert pids and not any(_runs(pid) for pid in pids)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def test_without_math_verify_numbers_are_graded_and_the_rest_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "math_verify" else there(name))
    assert is_correct("The answer is 18.", "18")
    with pytest.raises(Mistake, match="pip install 'agentloop\\[math\\]'"):
        is_correct(*NEEDS_ALGEBRA)
