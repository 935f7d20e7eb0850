"""`check` finds each breach of the protocol, says what was found, and passes an environment that keeps it."""

import asyncio

import pytest

from agentloop.environment.check import CLAIMS, Finding, check, passed
from agentloop.environment.registry import find


def findings_of(spec, until: str = "", **options) -> dict[str, Finding]:
    """Findings by the name of their claim, up to and with the claim `until`."""

    async def collect() -> list[Finding]:
        findings = []
        async for finding in check(spec, options, episodes=20):
            findings.append(finding)
            if finding.name == until:
                break
        return findings

    return {finding.name: finding for finding in asyncio.run(collect())}


SNAPSHOT = """
def snapshot(self):
    return self.n
def restore(self, state):
    self.n = state
"""


def test_a_sound_environment_passes_every_claim(write) -> None:
    found = findings_of(write(SNAPSHOT))
    assert {name: finding.passed for name, finding in found.items()} == {name: True for name, _, _ in CLAIMS}
    assert found["tasks"].detail == "5 train, 5 dev, 5 test, no id twice"
    assert "actions from: demonstration" in found["plays"].detail
    assert found["done"].detail.startswith("9 of 9 episodes ended")


def test_what_does_not_apply_is_neither_passed_nor_failed(write) -> None:
    found = findings_of(write("concurrency = 1\ndef demonstration(self, task):\n    return None"))
    assert [name for name, finding in found.items() if finding.passed is None] == ["done", "snapshots", "isolation"]
    assert passed(list(found.values()))
    assert "actions from: garbage (define demonstration() or actions()" in found["plays"].detail


def test_admissible_actions_are_played_where_there_is_no_demonstration(write) -> None:
    found = findings_of(write("def demonstration(self, task):\n    return None\ndef actions(self):\n    return [str(self.n + 1), 'no']"))
    assert "actions from: actions" in found["plays"].detail
    assert passed(list(found.values()))


def test_tools_are_called_by_their_schema(write) -> None:
    found = findings_of(
        write(
            """
            def tasks(self, split):
                return [Task(split)]
            def reset(self, task):
                self.sum = 0
                return "Add."
            @tool
            def add(self, a: int, b: int = 2) -> int:
                self.sum += a + b
                return self.sum
            def answer(self, text):
                return StepResult("", float(text == "7"), True)
            """,
            base="ToolEnvironment",
        )
    )
    assert "actions from: tools" in found["plays"].detail
    assert passed(list(found.values()))


@pytest.mark.parametrize(
    ("claim", "methods", "detail"),
    [
        ("tasks", "def tasks(self, split):\n    return [Task('a', {'start': 0})]", "'a' in train and dev and test"),
        ("tasks", "def tasks(self, split):\n    return [Task(f'{split}-{i}') for i in (1, 1)]", "'train-1' in train"),
        ("tasks", "def tasks(self, split):\n    return [Task(split + os.urandom(4).hex(), {'start': 0})]", "other tasks, or another order"),
        ("tasks", "def tasks(self, split):\n    return []", "tasks('train') is empty"),
        ("tasks", "def tasks(self, split):\n    return [Task(split, {'start': {1}})]", "does not survive JSON"),
        ("plays", "def reset(self, task):\n    return None", "reset() returned nothing (None), expected a string"),
        ("plays", "def system_prompt(self):\n    return ' '", "the system prompt is empty"),
        ("garbage", "def step(self, action):\n    int(action)\n    return super().step(action)", "the action '' was not taken"),
        ("done", "def step(self, action):\n    return StepResult('', done=False)", "does not end the episode"),
        ("done", "def success(self, total):\n    return False", "is no success"),
        ("repeats", "def reset(self, task):\n    super().reset(task)\n    return os.urandom(8).hex()", "the first observation was"),
        (
            "repeats",
            "seen = 0\ndef step(self, action):\n    self.seen += 1\n    result = super().step(action)\n"
            "    return StepResult(f'{result.observation} {self.seen}', result.reward, result.done)",
            "and then",
        ),
        ("processes", "def reset(self, task):\n    super().reset(task)\n    return str(hash('a'))", "PYTHONHASHSEED="),
        (
            "snapshots",
            "def snapshot(self):\n    return self\ndef restore(self, state):\n    self.n = state.n",
            "other observations than by replay",
        ),
        (
            "snapshots",
            "def snapshot(self):\n    self.kept = self.n\n    return 'kept'\n"
            "def restore(self, state):\n    self.n = getattr(self, 'kept', 0)",
            "restored in another instance: other observations than by replay",
        ),
        (
            "isolation",
            "def reset(self, task):\n    _Count.n = task.data['start']\n    return str(self.n)\ndef step(self, action):\n"
            "    _Count.n += action == str(_Count.n + 1)\n    return StepResult(str(_Count.n), 1.0, _Count.n % 10 == 3)",
            "while a second instance played",
        ),
        (
            "releases",
            "def reset(self, task):\n    KEPT.append(open(__file__))\n    return super().reset(task)",
            "open files",
        ),
        (
            "releases",
            "def __init__(self):\n    threading.Thread(target=STOP.wait, daemon=True).start()",
            "threads",
        ),
        ("releases", "def close(self):\n    raise OSError('stuck')", "close() failed: {'environment.step': 1}"),
    ],
)
def test_a_breach_is_found_and_comes_with_a_remedy(write, tmp_path, claim: str, methods: str, detail: str) -> None:
    spec = write(methods)
    path = tmp_path / "mine.py"
    path.write_text("import threading\nKEPT = []\nSTOP = threading.Event()\n" + path.read_text())
    found = findings_of(spec, until=claim)
    spec_module = __import__("sys").modules[spec.load().__module__]
    spec_module.STOP.set()
    for file in spec_module.KEPT:
        file.close()
    assert found[claim].passed is False, found
    assert detail in found[claim].detail
    assert found[claim].mend
    assert not passed(list(found.values()))


def test_an_environment_may_say_that_it_has_no_system_prompt(write) -> None:
    found = findings_of(write("def system_prompt(self):\n    return ''"), until="plays")
    assert found["plays"].passed and found["plays"].detail.endswith("actions from: demonstration (system_prompt() gives none)")


@pytest.mark.parametrize("base", ["_Count", "ToolEnvironment"])
def test_a_class_without_a_docstring_has_not_said_so(write, tmp_path, base: str) -> None:
    methods = "def tasks(self, split):\n    return [Task(split, {'start': 0})]\ndef reset(self, task):\n    self.n = 0\n    return 'Go.'"
    write(methods, base=base)
    path = tmp_path / "mine.py"
    path.write_text(path.read_text().replace('"""Say the next number."""', ""))
    found = findings_of(find(str(path)), until="plays")
    assert found["plays"].detail == "the system prompt is empty", found


def test_the_check_of_a_shipped_environment_passes() -> None:
    found = findings_of(find("textcraft"), depth=[1, 2, 3, 4])
    assert {name: finding.passed for name, finding in found.items()} == {name: True for name, _, _ in CLAIMS}, found
