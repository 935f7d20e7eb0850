"""A tool environment: typed methods in, schema and observations out, and nothing that a model writes raises."""

import asyncio
import inspect
import json
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from agentloop import StepResult, Task, ToolEnvironment, tool
from agentloop.environment.calls import Call, render_call
from agentloop.errors import Mistake


class Shop(ToolEnvironment):
    """Find the price."""

    def __init__(self) -> None:
        self.log: list[tuple[object, ...]] = []

    def tasks(self, split):
        return [Task(f"{split}-0")]

    def reset(self, task):
        return "What does an apple cost?"

    @tool
    def price(self, thing: str, count: int = 1, *, currency: Literal["euro", "yen"] = "euro") -> float:
        """The price of some things.

        Args:
            thing: Name of the thing,
                in the singular.
            count: How many of it.
        """
        self.log.append((thing, count, currency))
        return {"apple": 0.5}[thing] * count

    @tool
    def buy(self, thing: str) -> StepResult:
        """Buy one."""
        if thing == "moon":
            raise ValueError("it is not for sale")
        return StepResult(f"bought {thing}", reward=0.25, done=thing == "pear", info={"thing": thing})

    @tool
    def stock(self) -> dict[str, list[int]]:
        return {"apple": [1, 2]}

    def answer(self, text):
        return StepResult("", reward=float(text == "0.5"), done=True)


def step(action: str, environment: ToolEnvironment | None = None) -> StepResult:
    result = (environment or Shop()).step(action)
    assert isinstance(result, StepResult)
    return result


def test_a_call_runs_with_its_arguments_converted() -> None:
    shop = Shop()
    assert step("price('apple', count='3')", shop).observation == "1.5"
    assert shop.log == [("apple", 3, "euro")]


def test_results_are_text_as_it_is_and_json_otherwise() -> None:
    assert step("stock()").observation == '{"apple": [1, 2]}'
    assert step('<tool_call>{"name": "buy", "arguments": {"thing": "fig"}}</tool_call>').observation == "bought fig"


def test_a_tool_may_give_a_reward_and_end_the_episode() -> None:
    result = step("buy('fig')\nbuy('pear')\nbuy('fig')")
    assert (result.observation, result.reward, result.done) == ("bought fig\nbought pear", 0.5, True)
    assert [call["arguments"] for call in result.info["calls"]] == [{"thing": "fig"}, {"thing": "pear"}]


def test_a_message_without_a_call_is_the_answer_without_its_thoughts() -> None:
    assert step("<think>price('apple')</think> 0.5") == StepResult("", 1.0, True)
    assert step("It is 0.6") == StepResult("", 0.0, True)


def test_a_failed_call_stops_the_ones_after_it_and_says_so() -> None:
    shop = Shop()
    result = step("price('melon') price('apple') price('apple')", shop)
    assert result.observation == "error: price: KeyError: 'melon'\n(2 more calls were not run)"
    assert shop.log == [("melon", 1, "euro")]
    assert result.info["errors"] == {"raised": 1}


def test_most_calls_limits_what_one_message_can_do() -> None:
    class OneCall(Shop):
        most_calls = 1

    shop = OneCall()
    assert step("price('apple')\nprice('apple', 2)", shop).observation == "0.5\n(1 more call was not run)"
    assert len(shop.log) == 1


@pytest.mark.parametrize(
    ("action", "kind", "parts"),
    [
        (
            "prize('apple')",
            "unknown",
            ["there is no tool 'prize', did you mean 'price'?", "tools: price, buy, stock", "expected: price(thing=<str>"],
        ),
        ("price()", "arguments", ["argument thing is missing", "expected: price("]),
        ("price('apple', cuont=2)", "arguments", ["there is no argument cuont, did you mean count?"]),
        ("price('apple', 'many')", "arguments", ["argument count: input should be a valid integer", "found 'many'"]),
        ("price('apple', currency='dollar')", "arguments", ["argument currency: input should be 'euro' or 'yen'"]),
        ("price('a', 2, 'euro', 4)", "arguments", ["price takes 3 arguments, 4 were given"]),
        ("price('a', thing='b')", "arguments", ["argument thing was given twice"]),
        ("price(apple)", "malformed", ["apple is not a value: write text in quotes"]),
        ("buy('moon')", "raised", ["error: buy: it is not for sale"]),
    ],
)
def test_a_bad_call_is_an_observation_that_teaches(action: str, kind: str, parts: list[str]) -> None:
    result = step(action)
    assert result.observation.startswith("error: ")
    assert [part for part in parts if part not in result.observation] == []
    assert result.info["errors"] == {kind: 1}
    assert (result.reward, result.done) == (0.0, False)


def test_without_an_answer_of_its_own_a_plain_message_is_reminded_how_to_call() -> None:
    class Silent(ToolEnvironment):
        """Call."""

        @tool
        def ping(self, text: str) -> str:
            return text

    result = step("hello", Silent())
    assert result.observation == "error: your message holds no tool call\ntools: ping\nexpected: ping(text=<str>)"
    assert not result.done


def test_a_tool_may_be_called_answer() -> None:
    class Quiz(ToolEnvironment):
        """Answer by the tool."""

        @tool
        def answer(self, value: int) -> StepResult:  # type: ignore[override]
            return StepResult("", float(value == 7), True)

    assert step("answer(7)", Quiz()) == StepResult("", 1.0, True, info={"calls": [{"name": "answer", "arguments": {"value": 7}}]})
    assert "no tool call" in step("7", Quiz()).observation


def test_tools_stand_in_the_order_in_which_they_are_declared() -> None:
    class Quiz(Shop):
        @tool
        def hint(self) -> str:
            """A hint."""
            return "think"

        @tool
        def answer(self, n: int) -> StepResult:  # type: ignore[override]
            """Give the number."""
            return StepResult("", done=True)

        @tool
        def buy(self, thing: str) -> StepResult:
            """Buy two."""
            return StepResult("")

        def stock(self) -> dict[str, list[int]]:
            return {}

    assert list(Quiz.tools()) == ["price", "buy", "hint", "answer"], "an inherited one keeps its place, an unmarked one is none"
    assert Quiz.tools()["buy"].summary == "Buy two."


def test_the_prompt_shows_signatures_and_descriptions_in_few_words() -> None:
    assert Shop().system_prompt() == (
        "Find the price.\n\n"
        "Tools:\n"
        "- price(thing: str, count: int = 1, currency: Literal['euro', 'yen'] = 'euro') -> float: The price of some things.\n"
        "    thing: Name of the thing, in the singular.\n"
        "    count: How many of it.\n"
        "- buy(thing: str): Buy one.\n"
        "- stock() -> dict[str, list[int]]\n"
        "To call one, write a line such as: price(thing=<str>, count=<int>, currency=<Literal['euro', 'yen']>)"
    )


def test_the_prompt_can_hold_full_json_schemas() -> None:
    class Large(Shop):
        """Find the price."""

        tool_schema = "json"

    prompt = Large().system_prompt()
    schemas = [json.loads(line) for line in prompt.split("<tools>\n")[1].split("\n</tools>")[0].splitlines()]
    assert schemas[0] == {
        "type": "function",
        "function": {
            "name": "price",
            "description": "The price of some things.",
            "parameters": {
                "type": "object",
                "properties": {
                    "thing": {"type": "string", "description": "Name of the thing, in the singular."},
                    "count": {"type": "integer", "default": 1, "description": "How many of it."},
                    "currency": {"type": "string", "enum": ["euro", "yen"], "default": "euro"},
                },
                "required": ["thing"],
            },
        },
    }
    assert "<tool_call>" in prompt.split("</tools>")[1]
    assert Large().call("buy", thing="fig") == '<tool_call>\n{"name": "buy", "arguments": {"thing": "fig"}}\n</tool_call>'


def test_a_call_for_examples_is_one_that_runs() -> None:
    shop = Shop()
    assert step(shop.call("price", thing="apple", count=2), shop).observation == "1.0"


def test_pydantic_constraints_and_odd_names_are_kept() -> None:
    class Odd(ToolEnvironment):
        """Odd."""

        @tool
        def put(
            self, schema: Annotated[int, Field(ge=1, description="At least one.")], _x: list[str] | None = None, model_y: float = 0.5
        ) -> str:
            return f"{schema} {_x} {model_y}"

    assert step("put(schema=2, _x=['a'])", Odd()).observation == "2 ['a'] 0.5"
    assert "greater than or equal to 1" in step("put(0)", Odd()).observation
    assert "    schema: At least one." in Odd().system_prompt()
    assert Odd.tools()["put"].json_schema()["function"]["parameters"]["properties"]["schema"]["description"] == "At least one."


def test_async_tools_are_awaited() -> None:
    class Slow(ToolEnvironment):
        """Slow."""

        @tool
        async def wait(self, seconds: float) -> str:
            await asyncio.sleep(seconds)
            return "waited"

    result = Slow().step("wait(0)")
    assert inspect.isawaitable(result)
    assert asyncio.run(result).observation == "waited"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def bad(self, a): ...", "argument 'a' of tool 'bad' has no type"),
        ("def bad(self, *a: int): ...", "tool 'bad' has *a: int, which a schema cannot describe"),
        ("def bad(self, **a: int): ...", "tool 'bad' has **a: int, which a schema cannot describe"),
        ("def bad(self, a: 'Nowhere'): ...", "the types of tool 'bad' cannot be resolved: name 'Nowhere' is not defined"),
        ("def bad(self, a: socket): ...", "tool 'bad' has an argument type without a schema"),
    ],
)
def test_a_tool_that_cannot_be_described_is_a_mistake_with_its_line(source: str, message: str) -> None:
    names: dict[str, object] = {"tool": tool, "ToolEnvironment": ToolEnvironment, "socket": __import__("socket").socket}
    exec(compile(f"class Bad(ToolEnvironment):\n    @tool\n    {source}\n", "bad.py", "exec"), names)
    with pytest.raises(Mistake) as caught:
        names["Bad"]()  # type: ignore[operator]
    assert str(caught.value).startswith(f"bad.py:2: {message}")


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=60),
    st.dictionaries(st.text(max_size=8), st.none() | st.integers() | st.text(max_size=8) | st.lists(st.integers()), max_size=3),
)
def test_no_message_and_no_arguments_raise(text: str, arguments: dict[str, object]) -> None:
    for action in (text, render_call(Call("price", arguments), "hermes"), render_call(Call(text, arguments), "json")):
        assert isinstance(step(action).observation, str)
