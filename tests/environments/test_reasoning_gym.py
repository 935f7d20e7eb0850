"""Reasoning Gym: every generator asks the same again and accepts its own answer, and nothing that a model writes is run."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from agentloop import Environment
from agentloop.environment.base import SPLITS
from agentloop.environment.check import check
from agentloop.environment.registry import find
from agentloop.errors import Mistake

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed: pip install 'agentloop[reasoning_gym]'")

ROOT = Path(__file__).resolve().parents[2]


def make(**options: object) -> Environment:
    return find("reasoning_gym").make(**options)


async def test_the_protocol_is_kept() -> None:
    options = {"generator": ["chain_sum", "list_functions", "pool_matrix"]}
    findings = [finding async for finding in check(find("reasoning_gym"), options, episodes=20)]
    assert all(finding.passed for finding in findings), [finding for finding in findings if not finding.passed]


ASK_ALL = """
import hashlib, json, random, sys
from agentloop.environment.registry import find
environment = find("reasoning_gym").make()
tasks = list(environment.tasks("dev"))[: len(environment._names)]
asked = {}
for task in tasks[:: int(sys.argv[1])]:
    random.seed(); text = environment.reset(task); actions = environment.demonstration(task)
    result = environment.step(actions[0]) if actions else None
    asked[task.data["generator"]] = [hashlib.sha256(text.encode()).hexdigest(), result.reward if result else None]
print("ASKED" + json.dumps(asked))
"""


@pytest.mark.slow
def test_every_generator_asks_the_same_in_every_process_and_accepts_its_own_answer() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASK_ALL, step],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        )
        for step, seed in (("1", "1"), ("-1", "2"))
    ]
    printed = [process.communicate(timeout=240)[0].partition("ASKED") for process in processes]
    assert [before for before, _, _ in printed] == ["", ""], "the package prints while it works"
    first, second = (json.loads(asked) for _, _, asked in printed)
    assert len(first) >= 100
    assert {name for name in first if first[name] != second[name]} == set()
    assert {name: reward for name, (_, reward) in first.items() if reward not in (None, 1.0)} == {}


def test_the_answer_is_what_the_last_tags_hold() -> None:
    environment = make(generator="chain_sum", config={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
    task = environment.tasks("train")[0]
    question = environment.reset(task)
    answer = (environment.demonstration(task) or [""])[0].removeprefix("<answer>").removesuffix("</answer>")
    outcomes = {}
    for text in (f"Hm, <answer>1000</answer>. No: <answer> {answer} </answer>", f"It is {answer}.", "<answer>1000</answer>"):
        environment.reset(task)
        result = environment.step(text)
        outcomes[text] = (result.reward == 1.0, result.done, "errors" in result.info)
    assert list(outcomes.values()) == [(True, True, False), (False, True, True), (False, True, False)], question
    assert environment.step("again").done and environment.step("again").reward == 0.0
    bare = make(generator="chain_sum", tags=False)
    bare.reset(bare.tasks("train")[0])
    assert bare.step((bare.demonstration(bare.tasks("train")[0]) or [""])[0]).reward == 1.0


HOSTILE = (
    "__import__('os').system('touch {path}')",
    "[open('{path}', 'w')]",
    'print(exec(\'open("{path}", "w")\'))',
    "().__class__.__base__.__subclasses__()",
    'lambdify((), \'open("{path}", "w")\')()',
    "9**9**9**9",
    "(9**99)**(9**99)",
    "9999999999!",
    "x" * 100_000,
)
EVALUATING = [
    "binary_matrix",
    "n_queens",
    "spiral_matrix",
    "string_insertion",
    "countdown",
    "puzzle24",
    "polynomial_multiplication",
    "simple_integration",
    "intermediate_integration",
]


@pytest.mark.parametrize("generator", EVALUATING)
def test_an_answer_is_never_run(generator: str, tmp_path: Path) -> None:
    environment = make(generator=generator)
    task = environment.tasks("train")[0]
    for text in HOSTILE:
        environment.reset(task)
        assert environment.step(f"<answer>{text.format(path=tmp_path / 'made')}</answer>").reward < 0.1
    assert list(tmp_path.iterdir()) == []


def test_every_scorer_that_evaluates_text_is_mended() -> None:
    """A later version of the package may have more of them: each use of `eval` or `parse_expr` outside of generation is known here."""
    import reasoning_gym

    folder = Path(reasoning_gym.__file__).parent
    found = {
        path.stem for path in folder.rglob("*.py") if any(name in path.read_text("utf-8") for name in (" eval(", "(eval(", "parse_expr("))
    }
    generating = {"number_sorting", "basic_arithmetic", "bitwise_arithmetic", "generators_00_49", "generators_50_99", "propositional_logic"}
    assert found - generating <= set(EVALUATING)


def test_generators_leave_the_random_numbers_of_the_process_alone() -> None:
    environment = make(generator=["list_functions", "pool_matrix"])
    random.seed(1)
    numpy.random.seed(1)
    expected = random.random(), numpy.random.rand()
    random.seed(1)
    numpy.random.seed(1)
    texts = [environment.reset(task) for task in environment.tasks("train")[:6]]
    assert (random.random(), numpy.random.rand()) == expected
    assert [environment.reset(task) for task in reversed(environment.tasks("train")[:6])] == texts[::-1]


def test_the_split_goes_by_seed_and_the_generators_take_turns() -> None:
    environment = make(generator=["chain_sum", "lcm"])
    assert [task.id for task in environment.tasks("test")[:3]] == ["chain_sum-test-0", "lcm-test-0", "chain_sum-test-1"]
    assert {split: len(environment.tasks(split)) for split in SPLITS} == {"train": 1000, "dev": 100, "test": 100}
    train, test = ({environment.reset(task) for task in environment.tasks(split)[:60]} for split in ("train", "test"))
    assert len(train) > 55 and len(test) > 55 and not train & test


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generator": "chain_sums"}, "did you mean 'chain_sum'"),
        ({"generator": "composite"}, "naming several"),
        ({"generator": "gcd", "config": {"min_digits": 3}}, "'gcd' does not take"),
        ({"generator": "gcd", "config": {"seed": 3}}, "config cannot set seed"),
        ({"config": {"min_terms": 2}}, "config is for one generator"),
    ],
)
def test_wrong_options_are_mistakes(options: dict[str, object], message: str) -> None:
    with pytest.raises(Mistake, match=message):
        make(**options)
