"""Tools described by a JSON schema are shown, and their arguments checked and converted, like those of methods."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentloop.environment.calls import Call
from agentloop.environment.json_schema import describe_schema
from agentloop.environment.signatures import BadArguments
from agentloop.errors import Mistake

SEARCH = {
    "type": "object",
    "properties": {
        "limit": {"type": "integer", "default": 10},
        "query": {"type": "string", "description": "What to\n  look for."},
        "order": {"enum": ["new", "old"], "default": "new"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "within": {"anyOf": [{"$ref": "#/$defs/Box"}, {"type": "null"}], "default": None},
    },
    "required": ["query"],
    "$defs": {"Box": {"type": "object", "properties": {"inner": {"$ref": "#/$defs/Box"}}}},
}


def test_a_schema_is_shown_as_a_signature_and_as_its_own_schema() -> None:
    tool = describe_schema("search", "Search the notes.\nAll of them.\n\nMore.", SEARCH)
    assert tool.signature() == (
        "search(query: str, limit: int = 10, order: Literal['new', 'old'] = 'new', tags: list[str] = None, within: dict | None = None)"
    )
    assert tool.summary == "Search the notes. All of them." and tool.descriptions == {"query": "What to look for."}
    shown = tool.json_schema()["function"]["parameters"]
    assert shown["required"] == ["query"] and shown["properties"]["tags"]["items"] == {"type": "string"}
    assert shown["properties"]["order"]["enum"] == ["new", "old"]


def test_arguments_are_converted_and_refused_as_those_of_methods() -> None:
    tool = describe_schema("search", "", SEARCH)
    found = tool.arguments(Call("search", {"limit": "3", "within": {"a": 1}}, ("cats",)))
    assert found == {"query": "cats", "limit": 3, "order": "new", "tags": None, "within": {"a": 1}}
    for arguments, message in (
        ({}, "argument query is missing"),
        ({"query": "a", "limits": 3}, "did you mean limit?"),
        ({"query": "a", "order": "best"}, "argument order"),
        ({"query": "a", "tags": [1.5]}, "argument tags"),
    ):
        with pytest.raises(BadArguments, match=message.replace("?", r"\?")):
            tool.arguments(Call("search", arguments))


SIMPLE = st.sampled_from(["string", "integer", "number", "boolean", "null", "object", "array", "nonsense"]).map(lambda kind: {"type": kind})
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    SIMPLE
    | st.just({})
    | st.just(True)
    | st.lists(st.sampled_from(["a", "b", 1, None, True]), min_size=1).map(lambda words: {"enum": words}),
    lambda inner: (
        inner.map(lambda one: {"type": "array", "items": one})
        | st.lists(inner, min_size=1, max_size=3).map(lambda several: {"anyOf": several})
        | st.just({"type": ["string", "null"]})
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=5), SCHEMAS, max_size=3), st.booleans())
def test_any_schema_is_described_and_its_defaults_fit(properties: dict[str, Any], required: bool) -> None:
    tool = describe_schema("any", "", {"properties": properties, "required": list(properties) if required else []})
    assert tool.signature().startswith("any(") and set(tool.types) == set(properties)
    tool.json_schema()
    if not required:
        assert tool.arguments(Call("any", {})) == dict.fromkeys(properties)
    assert isinstance(tool.model, type(pydantic.BaseModel))


def test_a_schema_that_is_none_is_a_mistake_that_names_the_tool() -> None:
    with pytest.raises(Mistake, match="'odd'"):
        describe_schema("odd", "", {"properties": {"a": {"anyOf": 3}}})
