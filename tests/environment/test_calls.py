"""The parser reads every format that models emit, teaches where it cannot, and never raises."""

import keyword

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentloop.environment.calls import Call, Malformed, parse_calls, render_call, without_thoughts

NAMES = ("add", "search", "calculate")


def only(text: str) -> Call | Malformed:
    calls = parse_calls(text, NAMES)
    assert len(calls) == 1, calls
    return calls[0]


ADD = Call("add", {"a": 1, "b": 2})


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>',
        '<tool_call>\n{"arguments": {"a": 1, "b": 2}, "name": "add"}\n</tool_call>',
        'I will add.\n<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}',
        "<tool_call>{'name': 'add', 'arguments': {'a': 1, 'b': 2}}</tool_call>",
        "<tool_call>add(a=1, b=2)</tool_call>",
        '<tool_call>\n```json\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n```\n</tool_call>',
        'Sure:\n```json\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n```\nDone.',
        '```tool_call\n{"name": "add", "parameters": {"a": 1, "b": 2}}\n```',
        '```\n{"tool": "add", "args": {"a": 1, "b": 2}}\n```',
        "```python\nadd(a=1, b=2)\n```",
        "```python\nresult = add(a=1, b=2)\n```",
        "```python\nprint(add(a=1, b=2))\n```",
        '{"name": "add", "arguments": {"a": 1, "b": 2}}',
        'I call {"name": "add", "arguments": {"a": 1, "b": 2}} now',
        '{"type": "function", "function": {"name": "add", "arguments": "{\\"a\\": 1, \\"b\\": 2}"}}',
        '[{"name": "add", "arguments": {"a": 1, "b": 2}}]',
        "add(a=1, b=2)",
        "`add(a=1, b=2)`",
        "I think that add(a=1, b=2) is right.",
        "> add (a=1,\n  b=2)",
        "<think>maybe add(a=9, b=9)</think>\nadd(a=1, b=2)",
        "maybe add(a=9, b=9)</think>add(a=1, b=2)",
    ],
)
def test_every_format_gives_the_same_call(text: str) -> None:
    assert only(text) == ADD


def test_a_plain_call_by_position_keeps_the_order() -> None:
    assert only("add(1, -2.5)") == Call("add", {}, (1, -2.5))
    assert only('search("a, (b)", [1, {"k": None}], true)') == Call("search", {}, ("a, (b)", [1, {"k": None}], True))


def test_several_calls_come_in_their_order() -> None:
    assert [call.positional for call in parse_calls("add(1, 2)\nthen add(3, 4) and add(5, 6)", NAMES) if isinstance(call, Call)] == [
        (1, 2),
        (3, 4),
        (5, 6),
    ]
    two = '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call> <tool_call>{"name": "search", "arguments": {}}</tool_call>'
    assert parse_calls(two, NAMES) == (Call("add", {"a": 1}), Call("search"))


def test_an_explicit_format_wins_over_a_mention() -> None:
    text = 'I could do add(7, 7), but: <tool_call>{"name": "search", "arguments": {"query": "add(1, 2)"}}</tool_call>'
    assert only(text) == Call("search", {"query": "add(1, 2)"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The answer is 7.",
        "f(x) = 3 for all x",
        "use add(a, b) for that",
        '{"name": "John", "age": 3}',
        '```json\n{"answer": 7}\n```',
        "(3)",
    ],
)
def test_a_message_without_a_call_has_none(text: str) -> None:
    assert parse_calls(text, NAMES) == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<tool_call>add 1 and 2</tool_call>", "not valid JSON"),
        ("<tool_call></tool_call>", "the call is empty"),
        ('<tool_call>{"arguments": {}}</tool_call>', 'the key "name" is missing'),
        ('<tool_call>{"name": "add", "arguments": 3}</tool_call>', '"arguments" must be an object'),
        ('{"name": "add", "arguments": {"a": 1', "not valid JSON"),
        ("add(1, 2", "the closing parenthesis is missing"),
        ("add(add(1, 2), 3)", "one call at a time"),
        ("add(x, 3)", "x is not a value: write text in quotes"),
        ("calculate(3 * 4)", "3 * 4 is not a plain value"),
        ("add(1, 2, **{})", "** cannot be used"),
        ("add(1 2)", "it cannot be read"),
    ],
)
def test_a_call_that_cannot_be_read_says_why(text: str, reason: str) -> None:
    call = only(text)
    assert isinstance(call, Malformed)
    assert reason in call.reason


def test_an_unknown_tool_is_a_call_only_where_it_fills_a_line() -> None:
    assert only("Let me see.\nmultiply(3, 4)") == Call("multiply", {}, (3, 4))
    assert parse_calls("as in multiply(3, 4), say", NAMES) == ()


def test_nothing_is_evaluated() -> None:
    for text in ("add(__import__('os').getpid())", "add([x for x in (1,)][0])", "add((lambda: 1)())", "add(f'{1}')"):
        assert isinstance(only(text), Malformed)


def test_thoughts_are_left_out_even_when_cut_short() -> None:
    assert without_thoughts("<think>so add(1, 2)</think> 7") == "7"
    assert without_thoughts("<think>so add(1, 2)") == ""
    assert without_thoughts("no thought at all") == "no thought at all"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
identifiers = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))
calls = st.builds(Call, st.sampled_from(NAMES), st.dictionaries(identifiers, json_values, max_size=4), st.just(())) | st.builds(
    Call, st.sampled_from(NAMES), st.just({}), st.lists(json_values, max_size=3).map(tuple)
)


@given(calls, st.sampled_from(["hermes", "fenced", "json", "plain"]))
@example(Call("search", {"query": '<tool_call>{"name": "add", "arguments": {}}</tool_call>'}), "hermes")
@example(Call("search", {"query": '```json\n{"name": "add", "arguments": {}}\n```'}), "fenced")
@example(Call("search", {"query": "```json\n"}), "plain")
@example(Call("search", {"query": '{"name": "add", "arguments": {}}'}), "plain")
@example(Call("search", {"query": "add(1, 2)"}), "json")
def test_a_call_written_in_any_format_is_read_back(call: Call, style: str) -> None:
    assert parse_calls(render_call(call, style), NAMES) == (call,)


@given(st.lists(calls, min_size=2, max_size=4))
def test_several_hermes_calls_are_read_back_in_order(several: list[Call]) -> None:
    text = "\n".join(render_call(call, "hermes") for call in several)
    assert parse_calls(text, NAMES) == tuple(several)


FRAGMENTS = """
<tool_call> </tool_call> ``` ```json {"name":"add" "arguments": { } [ ] ( ) , add( a= ' " 1 - x : <think> </think> null nan é lambda:
** print( 1e999 0x
"""
fragments = st.sampled_from([*FRAGMENTS.split(), "\n", "\t", " ", "\\", "\x00", "\ud800"])


@settings(max_examples=200, deadline=None)
@given(st.text() | st.lists(fragments, max_size=25).map("".join))
@example("[" * 100_000)
@example('{"a":' * 50_000)
@example("add(" * 20_000)
@example("add(" + "(" * 5000 + ")" * 5000 + ")")
@example("add(-" + "-" * 10_000 + "1)")
@example("<tool_call>" * 10_000)
@example("```json\n" * 10_000)
@example("add(" + "9" * 5000 + ")")
@example('{"name":' * 6_000)
@example("```json\n{" * 6_000)
@example("add(1\n" * 10_000)
@example("x = (" * 10_000)
def test_the_parser_takes_any_text(text: str) -> None:
    for call in parse_calls(text, NAMES):
        assert isinstance(call, Malformed) or isinstance(call.name, str)
