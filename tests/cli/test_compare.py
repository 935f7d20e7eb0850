"""`agentloop compare`: results side by side, paired by task, in the terminal and as a page."""

from __future__ import annotations

import json
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agentloop.cli.main import run
from agentloop.evaluation.comparison import by_benchmark, compare_results, read_results
from agentloop.evaluation.intervals import Cluster, paired_difference, proportion


def write(path: Path, right: list[bool], *, benchmark: str = "gsm8k", model: str = "small", **more: Any) -> Path:
    """Results of one episode a task, as `agentloop eval` writes them."""
    clusters = {f"{benchmark}/test-{number}": Cluster(1, float(value)) for number, value in enumerate(right)}
    estimate = proportion(clusters.values())
    measured = {"name": "success", **asdict(estimate)}
    configuration = {"benchmark": benchmark, "split": "test", "model": model, "adapter": None, "seed": 0, "max_tokens": 256, **more}
    found = {
        "configuration": configuration,
        "engine": {"kind": "vllm", "dtype": "float32"},
        "versions": {"agentloop": "0.1.0"},
        "tasks": {"count": len(right), "hash": f"{len(right)}"},
        "prompt": {"system": "Solve <it>.", "first_observation": "1 + 1?", "examples": []},
        "results": {
            "base": {
                "measurements": [measured],
                "by_task": {"success": {task: list(cluster) for task, cluster in clusters.items()}},
                "shares": ["success"],
                "expenses": {"seconds": {"value": 2.0, "low": 1.5, "high": 2.5, "n": len(right), "tasks": len(right)}},
                "failures": {},
            }
        },
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found))
    return path


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """The first is right on 30 of 40 tasks and the second on 20 of them."""
    first = write(tmp_path / "a" / "results.json", [number < 30 for number in range(40)], model="trained")
    return first, write(tmp_path / "b" / "results.json", [number < 20 for number in range(40)], model="small")


def test_two_results_are_paired_by_task(two: tuple[Path, Path]) -> None:
    first, second = read_results([two[0].parent, two[1]])
    found = compare_results(first, second)
    assert (found.better, found.worse, found.equal, found.warnings) == (10, 0, 30, ())
    expected = paired_difference(first.by_task["success"], second.by_task["success"], shares=True)
    assert (
        found.differences == {"success": expected} and expected.value == 0.25 and expected.p_value is not None and expected.p_value < 0.01
    )


def test_the_table_tells_values_difference_and_significance(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", *map(str, two)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "gsm8k (test)" in shown and "75.0 [" in shown and "50.0 [" in shown
    assert "trained less small: better on 10 of 40 tasks, worse on 0, as good on 30" in shown
    assert "+25.0 [+" in shown and "0.00" in shown and "note:" not in shown


def test_what_makes_a_comparison_doubtful_is_said(tmp_path: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    other = write(tmp_path / "c" / "results.json", [True] * 30, max_tokens=512)
    assert run(["compare", str(two[0]), str(other)]) == 0
    shown = capsys.readouterr().out
    assert "max_tokens differs: 256 and 512" in shown and "the tasks differ" in shown
    (found,) = [compare_results(*read_results([two[0], other]))]
    assert found.differences["success"].tasks == 30 and found.differences["success"].unpaired == 10


def test_benchmarks_are_not_mixed_and_a_folder_may_hold_several(tmp_path: Path) -> None:
    for name in ("gsm8k", "math500"):
        for model in ("x", "y"):
            write(tmp_path / model / name / "results.json", [True, False], benchmark=name, model=model)
    groups = by_benchmark(read_results([tmp_path / "x", tmp_path / "y"]))
    assert {name: [result.name for result in results] for name, results in groups.items()} == {
        "gsm8k (test)": ["x", "y"],
        "math500 (test)": ["x", "y"],
    }


def test_results_of_one_name_are_told_apart(tmp_path: Path, two: tuple[Path, Path]) -> None:
    again = write(tmp_path / "seed1" / "results.json", [True] * 40, seed=1)
    assert [result.name for result in read_results([two[1], again, two[1]])] == ["small (b)", "small (seed1)", "small (b) #2"]


def test_the_page_holds_everything_and_nothing_is_forged_in_it(tmp_path: Path, two: tuple[Path, Path]) -> None:
    forged = write(tmp_path / "d" / "results.json", [False] * 40, model="<script>alert(1)</script>")
    page = tmp_path / "pages" / "all.html"
    assert run(["compare", str(two[0]), str(two[1]), str(forged), "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    HTMLParser().feed(text)
    assert "<script" not in text and "Solve &lt;it&gt;." in text
    assert text.count("<circle") == 3 and "trained less small" in text and "75.0 (" in text
    assert "src=" not in text.replace("style-src", "").replace("img-src", "") and "http://" not in text and "https://" not in text


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("nothing.json", None, ["no results at", "agentloop eval"]),
        ("text.json", "no JSON", ["text.json", "not the results of an evaluation"]),
        ("other.json", "{}", ["other.json", "not the results of an evaluation"]),
        ("list.json", "[1]", ["not the results of an evaluation"]),
    ],
)
def test_what_is_no_result_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | None, told: list[str]
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    assert run(["compare", str(tmp_path / name)]) == 2
    message = capsys.readouterr().err
    assert all(words in message for words in told) and "Traceback" not in message


def test_results_without_a_task_in_common_are_refused(tmp_path: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    other = write(tmp_path / "e" / "results.json", [True])
    other.write_text(other.read_text().replace("gsm8k/test-0", "gsm8k/test-99"))
    assert run(["compare", str(two[0]), str(other)]) == 2
    assert "no task in common" in capsys.readouterr().err
