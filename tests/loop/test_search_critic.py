"""`sample: {method: …, critic: …}` in a whole run: who values turns, what is kept of it, what it costs, and a kill in between."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentloop.cli.main import run as agentloop
from agentloop.run.journal import Entry
from agentloop.trace.hash import trees_hash
from agentloop.trace.ledger import Ledger
from agentloop.trace.search_statistics import search_statistics
from agentloop.trace.store import read_trees
from agentloop.trace.tree import Tree
from tests.loop.test_judge import chat_server
from tests.loop.test_search import TREES, begun, entry_of, finished, records, searching, shown
from tests.warm import WarmStart

METHODS = {
    "mcts": "method: mcts, simulations: 4, width: 3, depth: 3, leaves: 2",
    "best_of_n": "method: best_of_n, width: 3, max_turns: 3",
    "beam": "method: beam, width: 2, branch: 3, max_turns: 3",
}
POLICY = '''
import pathlib
import time

CALLS = pathlib.Path(__file__).with_name("calls.txt")


def player(prompt_text, request):
    """Plays as before; as a critic it knows whether the number that was said last is the right one."""
    if "how likely it is to succeed" not in prompt_text:
        return answer(prompt_text, request)
    numbers = [int(number) for number in re.findall(r"^> (\\d+)$", prompt_text, re.MULTILINE)]
    if "nothing came back yet" in prompt_text:
        right = numbers[-1] == numbers[-2] + 1
    else:
        right = "wrong" not in prompt_text
    return f"The last number was {numbers[-1]}.\\nScore: {9 if right else 2}"


def slow(prompt_text, request):
    """The same, but it takes its time, and notes for which task it was asked to play."""
    time.sleep(0.01)
    if "how likely it is to succeed" not in prompt_text:
        with CALLS.open("a") as file:
            file.write(re.findall(r"user\\s+(\\d+)", prompt_text)[0] + "\\n")
    return player(prompt_text, request)
'''
PLAYER = ("policy.py:answer", "policy.py:player, max_model_len: 8000")


@pytest.fixture
def written(toy_recipe: Callable[..., Path]) -> Callable[..., Path]:
    """Writes the toy with one search that has a critic; its script can be the critic too."""

    def write(settings: str, *changes: tuple[str, str], script: tuple[str, str] = PLAYER) -> Path:
        recipe = searching(toy_recipe, settings, script, *changes)
        with (recipe.parent / "policy.py").open("a") as file:
            file.write(POLICY)
        return recipe

    return write


def done(recipe: Path, out: Path) -> tuple[list[Tree], Entry]:
    """The trees of a run, and what the journal says of its search."""
    assert agentloop(["run", str(recipe), "--out", str(out), "--quiet"]) == 0
    return list(read_trees(out / TREES)), entry_of(out)


@pytest.mark.parametrize("method", METHODS)
def test_the_bare_base_values_what_the_actor_finds(method: str, written: Callable[..., Path], tmp_path: Path) -> None:
    recipe = written(
        f"tasks: 6, {METHODS[method]}, critic: {{role: critic, max_tokens: 60, scale: 9}}",
        ("seed: 3", "seed: 3\nroles: {critic: {adapter: false, prompt: You are strict.}}"),
    )
    trees, entry = done(recipe, tmp_path / "one")
    done(recipe, tmp_path / "two")
    assert trees_hash(tmp_path / "one" / TREES) == trees_hash(tmp_path / "two" / TREES)
    judged = 0
    for tree in trees:
        estimates = [verdict for verdict in tree.verdicts if verdict.critic == "estimate"]
        judged += len(estimates)
        assert estimates and {verdict.stage for verdict in estimates} == {"trees"}
        for verdict in estimates:
            (said,) = (tree[turn] for turn in verdict.turns)
            assert (said.parent, said.seat, said.role, said.fresh) == (verdict.turn, "critic", "critic", "critic")
            wrong = tree[verdict.turn].observation == "wrong"
            assert verdict.value in (1.0, 0.125) and (not wrong or verdict.value == 0.125)
        for turn, known in search_statistics(tree).items():
            below = [one for one in estimates if any(step.id == turn for step in tree.path(one.turn))]
            assert known.visits >= len(below), "each estimate is backed up on the whole way to the root"
    assert sum(any(turn.success for turn in tree.turns) for tree in trees) > 3, "the critic knows which number is right"
    cost = Ledger.of_trees(trees, "trees").total(role="critic")
    assert entry.tokens["judged"] == cost.judged > 0 and cost.turns == judged and cost.generated == 0
    critic = entry.about["critic"]
    assert (critic["role"], critic["adapter"], critic["questions"], critic["unreadable_answers"]) == ("critic", "base", judged, 0)
    assert sum(critic["judge_tokens"][kind] for kind in ("prompt", "generated")) == cost.judged
    assert entry.about["verdicts"]["verdicts"] == judged and entry.about["adapter"] == "base"
    assert "<td>000/trees</td><td>estimate</td><td>base</td>" in (tmp_path / "one/report.html").read_text()


def test_a_search_with_a_critic_that_is_killed_loses_no_finished_tree(
    written: Callable[..., Path], warm: WarmStart, tmp_path: Path
) -> None:
    settings = f"tasks: 8, concurrency: 4, {METHODS['beam']}, critic: {{role: actor, max_tokens: 60, votes: 2, temperature: 0.7}}"
    recipe = written(settings, script=("policy.py:answer", "policy.py:slow, max_model_len: 8000"))
    whole, out, calls = tmp_path / "whole", tmp_path / "killed", recipe.with_name("calls.txt")
    _, before = done(recipe, whole)
    calls.unlink()
    process = warm.run(recipe, out)
    deadline = time.monotonic() + 60
    while records(out) < 2 or len(begun(calls)) <= records(out):
        assert process.poll() is None, warm.log(out).read_text()
        assert time.monotonic() < deadline, "waited 60 s for two trees"
        time.sleep(0.005)
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL
    kept = finished(out)
    assert 2 <= len(kept) < 8
    calls.unlink()
    _, after = done(recipe, out)
    assert not begun(calls) & {shown(tree) for tree in kept.values()}, "what was finished is neither played nor valued again"
    assert trees_hash(out / TREES) == trees_hash(whole / TREES)
    assert after.tokens == before.tokens and after.about["verdicts"] == before.about["verdicts"]
    assert after.about["critic"]["questions"] < before.about["critic"]["questions"]


def test_a_scoring_model_values_candidates(written: Callable[..., Path], toy_model: Path, tmp_path: Path) -> None:
    recipe = written(
        f"tasks: 3, {METHODS['best_of_n']}, critic: reward",
        ("seed: 3", f"seed: 3\nroles: {{reward: {{model: {toy_model}, scoring: classifier}}}}"),
    )
    trees, entry = done(recipe, tmp_path / "out")
    for tree in trees:
        estimates = {verdict.turn: verdict.value for verdict in tree.verdicts if verdict.critic == "estimate"}
        assert all(value is not None and 0 < value < 1 for value in estimates.values())
        for node in {turn.parent for turn in tree.turns if not turn.from_critic}:
            children = [turn for turn in tree.children(node) if not turn.from_critic]
            (played,) = [turn for turn in children if turn.observation is not None]
            assert estimates[played.id] == max(estimates[turn.id] for turn in children)  # type: ignore[type-var]
    assert entry.tokens["judged"] > 0 and entry.about["critic"]["adapter"] == str(toy_model)


def test_a_model_behind_a_url_values_and_has_its_key(
    written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[str, dict[str, object]]] = []
    with chat_server("Score: 3", seen) as url:  # type: ignore[arg-type]
        role = ("seed: 3", f"seed: 3\nroles: {{far: {{url: '{url}', model: large, key: CRITIC_KEY}}}}")
        recipe = written(f"tasks: 3, {METHODS['mcts']}, critic: far", role)
        assert agentloop(["run", str(recipe), "--out", str(tmp_path / "out"), "--quiet"]) == 2
        assert "the environment variable CRITIC_KEY is not set; expected the key of role 'far' in it" in capsys.readouterr().err
        monkeypatch.setenv("CRITIC_KEY", "sk-secret")
        trees, entry = done(recipe, tmp_path / "out")
    said = [turn for tree in trees for turn in tree.turns if turn.from_critic]
    assert len(said) == len(seen) > 0 and all(turn.foreign and turn.role == "far" for turn in said)
    assert {key for key, _ in seen} == {"Bearer sk-secret"}
    assert entry.tokens["judged"] == 107 * len(seen)
    assert str(entry.about["critic"]["adapter"]).startswith("large at 127.0.0.1:")


def test_answers_that_cannot_be_read_are_counted_and_what_the_server_overlooks_is_told(
    written: Callable[..., Path], tmp_path: Path
) -> None:
    seen: list[tuple[str, dict[str, object]]] = []
    with chat_server("Who knows?", seen) as url:  # type: ignore[arg-type]
        role = ("seed: 3", f"seed: 3\nroles: {{far: {{url: '{url}', model: large, structured_outputs: choice}}}}")
        trees, entry = done(written(f"tasks: 2, {METHODS['mcts']}, critic: far", role), tmp_path / "out")
    estimates = [verdict for tree in trees for verdict in tree.verdicts if verdict.critic == "estimate"]
    assert {(verdict.value, verdict.label) for verdict in estimates} == {(None, "unparsable")}
    assert entry.about["verdicts"]["unparsable"] == entry.about["critic"]["unreadable_answers"] == len(estimates) == len(seen) // 2
    assert str(entry.about["note"]).endswith(f"does not keep to choice: {len(estimates)} answers were not held")


def test_another_critic_is_another_search(written: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a finished search depended on may not change under it: here the system prompt of the role that values."""
    settings = f"tasks: 2, {METHODS['beam']}, critic: {{role: critic, max_tokens: 60}}"
    roles = "seed: 3\nroles: {critic: {adapter: false, prompt: PROMPT}}"
    done(written(settings, ("seed: 3", roles.replace("PROMPT", "Be strict."))), tmp_path / "out")
    recipe = written(settings, ("seed: 3", roles.replace("PROMPT", "Be kind.")))
    assert agentloop(["run", str(recipe), "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "was finished with other settings" in capsys.readouterr().err


def test_a_critic_that_gives_way_too_often_stops_the_run(
    written: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = written(
        f"tasks: 3, {METHODS['beam']}, critic: far",
        ("seed: 3", "seed: 3\nroles: {far: {url: 'http://127.0.0.1:9/v1', model: large}}"),
        script=("policy.py:answer", "policy.py:answer, retries: 0"),
    )
    assert agentloop(["run", str(recipe), "--out", str(tmp_path / "out"), "--quiet"]) == 1
    assert "engine.connection" in capsys.readouterr().err
