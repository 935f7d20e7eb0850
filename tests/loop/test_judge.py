"""`judge` in a whole run: verdicts in the trees, tokens in the ledger, numbers in the report, and a killed stage that goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agentloop.cli.main import run as agentloop
from agentloop.run.journal import Entry, Journal
from agentloop.trace.ledger import Ledger
from agentloop.trace.store import TreeWriter, read_trees
from agentloop.trace.tree import Tree
from agentloop.trace.verdict import first_error, is_walked, steps

pytestmark = pytest.mark.usefixtures("warm_training")

BUILD = "  - build:    {id: rows, from: trees,"
ONE_ROUND = ("iterations: 2", "iterations: 1")
POLICY = '''

def player(prompt_text, request):
    """Plays as before; as a judge it sees the number that was said, and knows which is right."""
    if "The latest action, step" in prompt_text:
        said = re.findall(r"The latest action, step \\d+:\\n> (\\d+)\\n", prompt_text)[-1]
        shown = re.findall(r"(?:saw first|came back):\\n> (\\d+)", prompt_text)
        right = int(said) == int(shown[-1] if "wrong" in prompt_text else shown[-2]) + 1
        return f"It said {said}.\\nJudgement: {'Good' if right else 'Bad'}"
    if "against a rubric" in prompt_text:
        return "no score" if "Answer now" not in prompt_text else "Score: 4"
    return answer(prompt_text, request)
'''


def add(*stages: str) -> tuple[str, str]:
    """Puts stages before the build of the toy."""
    return BUILD, "".join(f"  - {stage}\n" for stage in stages) + BUILD


@pytest.fixture
def judged_run(toy_recipe: Callable[..., Path], tmp_path: Path) -> Callable[..., tuple[int, Path]]:
    """Runs the toy with these changes; its script can also judge."""

    def run(*changes: tuple[str, str], again: bool = False) -> tuple[int, Path]:
        recipe = toy_recipe(ONE_ROUND, ("policy.py:answer", "policy.py:player, max_model_len: 8000"), *changes)
        with (recipe.parent / "policy.py").open("a") as file:
            file.write(POLICY)
        return agentloop(["run", str(recipe), "--out", str(tmp_path / "out"), "--quiet"]), tmp_path / "out"

    return run


def entry_of(out: Path, stage: str) -> Entry:
    entry = Journal(out / "journal.jsonl").finished(stage)
    assert entry is not None
    return entry


def trees_of(out: Path, stage: str) -> list[Tree]:
    return list(read_trees(out / f"iterations/000/trees/{stage}.parquet"))


def test_the_first_errors_of_a_run_are_found_and_the_run_goes_on(judged_run: Callable[..., tuple[int, Path]]) -> None:
    code, out = judged_run(
        add("judge: {id: errors, from: trees, critic: first_error, max_tokens: 40}"), ("from: trees, dataset", "from: errors, dataset")
    )
    assert code == 0
    sampled, judged = trees_of(out, "trees"), trees_of(out, "errors")
    assert [tree.id for tree in judged] == [tree.id for tree in sampled]
    failed = 0
    for tree in judged:
        for leaf in tree.leaves():
            error = first_error(tree, leaf.id, stage="errors")
            if leaf.success:
                continue
            failed += 1
            # In this game the step that was answered with "wrong" is the first and only error.
            assert is_walked(tree, leaf.id) and error is not None and error.observation == "wrong"
            assert all(turn.observation != "wrong" for turn in steps(tree, error.id)[:-1])
    assert failed
    entry = entry_of(out, "000/errors")
    added = Ledger.of_trees(judged, "e").total().judged
    assert entry.tokens["judged"] == added > 0 and "generated" not in entry.tokens
    counts = entry.about["verdicts"]
    assert counts["labels"]["Bad"] == failed or counts["labels"]["Bad"] <= failed
    assert entry.about["note"].startswith(f"{counts['verdicts']} verdicts · Bad ")
    assert entry_of(out, "000/rows").outputs["rows"].count > 0
    page = (out / "report.html").read_text()
    assert "<h2>Verdicts</h2>" in page and "<td>000/errors</td><td>first_error</td><td>base</td>" in page


def test_rubric_pairwise_and_outcome_in_a_chain(judged_run: Callable[..., tuple[int, Path]]) -> None:
    code, out = judged_run(
        add(
            "judge: {id: outcomes, from: trees, critic: outcome}",
            "judge: {id: scores, from: outcomes, critic: rubric, rubric: counts well, max_tokens: 40, role: other}",
        ),
        ("seed: 3", "seed: 3\nroles: {other: {adapter: false, prompt: You are strict.}}"),
    )
    assert code == 0
    for tree in trees_of(out, "scores"):
        leaves = {leaf.id for leaf in tree.leaves()}
        by_critic = {critic: {verdict.turn for verdict in tree.verdicts if verdict.critic == critic} for critic in ("outcome", "rubric")}
        assert by_critic == {"outcome": leaves, "rubric": leaves}
        scored = [verdict for verdict in tree.verdicts if verdict.critic == "rubric"]
        assert {verdict.value for verdict in scored} == {4.0}
        assert all(len(verdict.turns) == 2 and tree[verdict.turns[1]].draw.kind == "constrained" for verdict in scored)
        assert {turn.role for turn in tree.leaves(seat="critic")} == {"other"}
    entry = entry_of(out, "000/scores")
    assert entry.about["asked_again"] == entry.about["questions"] > 0 and entry.about["unreadable_answers"] == 0
    assert "judged" not in entry_of(out, "000/outcomes").tokens


def test_each_role_judges_with_its_own_present_adapter(judged_run: Callable[..., tuple[int, Path]]) -> None:
    evaluate = "  - evaluate: {id: dev,"
    judges = {"own": "actor", "other": "critic", "bare": "frozen"}
    stages = [f"judge: {{id: {name}, from: trees, critic: first_error, max_tokens: 40, role: {role}}}" for name, role in judges.items()]
    train = [
        "sample: {id: theirs, tasks: 6, samples: 4, max_tokens: 8, max_turns: 4, role: critic}",
        "build: {id: lessons, from: theirs, dataset: self_imitation, best: 2, role: critic}",
        "train: {id: second, from: lessons, method: sft, epochs: 1, rank: 4, batch_size: 4, role: critic}",
    ]
    code, out = judged_run(
        (evaluate, "".join(f"  - {stage}\n" for stage in (*train, *stages)) + evaluate),
        ("seed: 3", "seed: 3\nroles: {critic: {adapter: true}, frozen: {adapter: false}}"),
    )
    assert code == 0
    versions: dict[str, str] = {}
    for name, role in judges.items():
        turns = [turn for tree in trees_of(out, name) for turn in tree.leaves(seat="critic")]
        assert turns and {turn.role for turn in turns} == {role}
        (versions[name],) = {turn.draw.adapter for turn in turns}
        assert versions[name] == entry_of(out, f"000/{name}").about["adapter"]
    assert versions["own"].startswith("actor-000-") and versions["other"].startswith("critic-000-") and versions["bare"] == "base"


def test_a_judging_that_was_killed_goes_on_where_it_was(judged_run: Callable[..., tuple[int, Path]], tmp_path: Path) -> None:
    """The journal is cut back to before the stage ended, with some of its trees in the work folder, as a kill leaves it."""
    stage = add("judge: {id: errors, from: trees, critic: first_error, max_tokens: 40}")
    code, out = judged_run(stage)
    assert code == 0
    whole = entry_of(out, "000/errors")
    lines = (out / "journal.jsonl").read_text().splitlines(keepends=True)
    ends = [index for index, line in enumerate(map(json.loads, lines)) if (line["stage"], line["event"]) == ("000/errors", "finished")]
    (out / "journal.jsonl").write_text("".join(lines[: ends[0]]))
    path = out / "iterations/000/trees/errors.parquet"
    judged = trees_of(out, "errors")
    path.unlink()
    with TreeWriter(path) as writer:
        for tree in judged[:2]:
            writer.add(tree)
    code, out = judged_run(stage)
    assert code == 0
    again = entry_of(out, "000/errors")
    assert again.outputs["errors"].content_hash == whole.outputs["errors"].content_hash
    assert again.tokens == whole.tokens and again.about["verdicts"] == whole.about["verdicts"]
    assert (again.about["resumed"], whole.about["resumed"]) == (2, 0)


def test_the_same_trees_twice_are_refused(judged_run: Callable[..., tuple[int, Path]], capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = judged_run(add("judge: {id: one, from: trees, critic: outcome}", "judge: {id: two, from: [trees, one], critic: outcome}"))
    assert (
        code == 1 and "comes twice; to add one critic's verdicts to another's, judge what the other one judged" in capsys.readouterr().err
    )


def test_a_scoring_model_judges(judged_run: Callable[..., tuple[int, Path]], toy_model: Path) -> None:
    code, out = judged_run(
        add("judge: {id: scored, from: trees, critic: scoring, role: reward, each: turn}"),
        ("seed: 3", f"seed: 3\nroles: {{reward: {{model: {toy_model}, scoring: classifier}}}}"),
    )
    assert code == 0
    for tree in trees_of(out, "scored"):
        assert {verdict.turn for verdict in tree.verdicts} == {turn.id for turn in tree.turns if not turn.from_critic}
        assert all(0 < (verdict.value or 0) < 1 for verdict in tree.verdicts)
    assert entry_of(out, "000/scored").tokens["judged"] > 0


@contextmanager
def chat_server(text: str, seen: list[Any]) -> Iterator[str]:
    """A server with the chat protocol, in a thread; `seen` gets the authorization and the body of every request."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.headers["Authorization"], body))
            choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            answer = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 7}}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_model_behind_a_url_judges_and_its_turns_have_no_ids(
    judged_run: Callable[..., tuple[int, Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-secret")
    seen: list[Any] = []
    with chat_server("Hm.\nJudgement: Bad", seen) as url:
        changes = (
            add("judge: {id: errors, from: trees, critic: first_error, role: far, votes: 3, temperature: 0.7}"),
            ("seed: 3", f"seed: 3\nroles: {{far: {{url: '{url}', model: large, key: JUDGE_KEY}}}}"),
        )
        code, out = judged_run(*changes)
    assert code == 0
    verdicts = [verdict for tree in trees_of(out, "errors") for verdict in tree.verdicts]
    assert verdicts and {(verdict.label, len(verdict.turns)) for verdict in verdicts} == {("Bad", 3)}
    for tree in trees_of(out, "errors"):
        for turn in tree.leaves(seat="critic"):
            assert turn.foreign and turn.role == "far" and turn.info["question"].startswith("An agent works on a task")
            assert turn.draw.adapter.startswith("large at 127.0.0.1:")
    assert entry_of(out, "000/errors").tokens == {"judged": 107 * len(seen), "turns": len(seen)}
    assert {key for key, _ in seen} == {"Bearer sk-secret"} and len({body["seed"] for _, body in seen}) == len(seen)
    assert not any(b"sk-secret" in file.read_bytes() for file in out.rglob("*") if file.is_file())


def test_a_key_that_is_missing_is_told_before_anything_runs(
    judged_run: Callable[..., tuple[int, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = judged_run(
        add("judge: {id: errors, from: trees, critic: first_error, role: far}"),
        ("seed: 3", "seed: 3\nroles: {far: {url: 'http://127.0.0.1:9/v1', model: large, key: NO_SUCH_KEY}}"),
    )
    assert code == 2 and "the environment variable NO_SUCH_KEY is not set" in capsys.readouterr().err
    assert not (out / "iterations").exists()


def test_a_judge_that_cannot_be_reached_stops_the_run(
    judged_run: Callable[..., tuple[int, Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = judged_run(
        add("judge: {id: errors, from: trees, critic: first_error, role: far}"),
        ("seed: 3", "seed: 3\nroles: {far: {url: 'http://127.0.0.1:9/v1', model: large}}"),
        ("max_model_len: 8000", "max_model_len: 8000, retries: 0"),
    )
    assert code == 1
    assert "questions were not answered, more than max_failures allows (0.1): engine.connection" in capsys.readouterr().err
