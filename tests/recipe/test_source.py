"""YAML as recipes read it: types without surprises, and a line for every value."""

from __future__ import annotations

from typing import Any

import pytest

from agentloop.recipe.source import parse


def value(text: str) -> Any:
    return parse(f"key: {text}\n", "r.yaml").data["key"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2e-4", 2e-4),
        ("2.0e-4", 2e-4),
        ("1E3", 1e3),
        (".5", 0.5),
        ("-1.", -1.0),
        ("1_000", 1000),
        ("010", 10),
        ("+3", 3),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1.2.3", "1.2.3"),
        ("e4", "e4"),
        ("'64'", "64"),
        ('"true"', "true"),
        (r'"\ud83d\ude00 \ud800"', "\N{GRINNING FACE} \N{REPLACEMENT CHARACTER}"),
        ("|\n  two\n  lines", "two\nlines\n"),
        ("[1, a, {b: 2}]", [1, "a", {"b": 2}]),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, expected: object) -> None:
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_every_value_knows_its_line() -> None:
    source = parse("a: 1\nb:\n  - x\n  - {c: 2,\n     d: 3}\n", "r.yaml")
    places = {path: source.place(path) for path in [("a",), ("b",), ("b", 0), ("b", 1, "c"), ("b", 1, "d")]}
    assert places == {
        ("a",): ("r.yaml", 1),
        ("b",): ("r.yaml", 2),
        ("b", 0): ("r.yaml", 3),
        ("b", 1, "c"): ("r.yaml", 4),
        ("b", 1, "d"): ("r.yaml", 5),
    }


def test_what_is_not_in_the_file_has_the_line_of_what_is_around_it() -> None:
    assert parse("a:\n  b: 1\n", "r.yaml").place(("a", "b", "c", 3)) == ("r.yaml", 2)


def test_aliases_are_copied() -> None:
    source = parse("a: &x {n: 1}\nb: *x\n", "r.yaml")
    assert source.data == {"a": {"n": 1}, "b": {"n": 1}}
