"""Tool environments: typed methods that the model calls, with everything between its text and the method done here.

    class Shop(ToolEnvironment):
        \"\"\"Find the price of the thing that is asked for, then answer with the number alone.\"\"\"

        @tool
        def price(self, thing: str) -> int:
            \"\"\"The price of a thing in cents.\"\"\"
            return self.prices[thing]

        def answer(self, text):
            return StepResult("", reward=float(text == self.target), done=True)

The contract, turn by turn:

- A message with calls runs them in order (`most_calls` at most; 1 means the first only) until one fails or ends the
  episode. The observation holds one result a line, the reward is their sum.
- A message without a call goes to `answer`, which a subclass defines; by default it is answered with a reminder of how to call.
- Nothing that a model writes raises. A malformed call, an unknown tool, wrong arguments and a tool that raises are
  observations that begin with `error:` and say what was expected; `info["errors"]` counts them by kind (malformed,
  unknown, arguments, raised, no_call).
- A tool returns text, any JSON value, or a `StepResult` of its own to give a reward or end the episode. It may be async.
- A tool that is itself gone (its server died) raises `EnvironmentFailure`, which ends the episode: that is no outcome of the policy.
- Tools that only an instance knows, such as those of a server, come from `more_tools` and are run by `call_tool`.
"""

from __future__ import annotations

import inspect
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, TypeVar, cast

from agentloop.environment.base import Environment, StepResult
from agentloop.environment.calls import (
    Call,
    CallFormat,
    Malformed,
    parse_calls,
    render_call,
    without_thoughts,
)
from agentloop.environment.signatures import BadArguments, ToolSchema, describe
from agentloop.errors import AgentloopError, Mistake, nearest

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "__agentloop_tool__"
_LONGEST_ERROR = 300


def tool(function: Function) -> Function:
    """Declare a typed method as a tool of its environment."""
    setattr(function, _MARK, True)
    return function


class ToolEnvironment(Environment):
    """Base class of environments that are played by calling tools. Define `tasks`, `reset`, `answer` and methods marked `@tool`.

    Class attributes:
        tool_schema: How the tools are shown in the system prompt: "signature", a line a tool for small contexts, or
            "json", full JSON schemas in `<tools>` tags, which larger models were trained on.
        call_format: How the model is asked to write a call; by default "plain" with signatures and "hermes" with JSON schemas. All
            formats are understood, whatever is asked for.
        most_calls: Most calls of one message that are run.
    """

    tool_schema: ClassVar[Literal["signature", "json"]] = "signature"
    call_format: ClassVar[CallFormat | None] = None
    most_calls: ClassVar[int] = 8

    _schemas: ClassVar[dict[str, ToolSchema] | None] = None

    def __new__(cls, *_arguments: Any, **_options: Any) -> Self:
        cls.tools()  # a tool that cannot be described is a mistake now, not in the middle of an episode
        return super().__new__(cls)

    @classmethod
    def tools(cls) -> dict[str, ToolSchema]:
        """The tools by name, in the order in which they are defined, those of base classes first. Raises `Mistake`."""
        schemas = cls.__dict__.get("_schemas")
        if schemas is None:
            names = dict.fromkeys(name for base in reversed(cls.__mro__) for name, value in vars(base).items() if hasattr(value, _MARK))
            marked = [(name, getattr(cls, name)) for name in names if hasattr(getattr(cls, name), _MARK)]
            schemas = {name: describe(function) for name, function in marked}
            cls._schemas = schemas
        return cast(dict[str, ToolSchema], schemas)

    def more_tools(self) -> Mapping[str, ToolSchema]:
        """Tools beside the methods, by the name that the model calls them by; by default none. They are run by `call_tool`."""
        return {}

    def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        """Run one of `more_tools` with checked arguments; its result is what a tool returns."""
        raise NotImplementedError(f"{type(self).__name__} has no tool {name!r}")

    def all_tools(self) -> dict[str, ToolSchema]:
        """All tools of this instance by name: the methods, then `more_tools`. Raises `Mistake` where two have one name."""
        own, more = self.tools(), self.more_tools()
        twice = sorted(set(own) & set(more))
        if twice:
            raise Mistake(f"{type(self).__name__} has two tools {twice[0]!r}: a method, and one of more_tools()")
        return {**own, **more}

    def answer(self, text: str) -> StepResult | Awaitable[StepResult]:
        """What a message without a call does: ends the episode as a final answer, or goes on. By default a reminder of how to call."""
        return self._error("no_call", "your message holds no tool call")

    def step(self, action: str) -> StepResult | Awaitable[StepResult]:
        """Run the calls in `action`, or pass it to `answer`."""
        coroutine = self._step(action)
        return coroutine if self._is_async() else _finish(coroutine)

    def system_prompt(self) -> str:
        """The class docstring followed by the tools."""
        return "\n\n".join(part for part in (super().system_prompt(), self.tools_prompt()) if part)

    def tools_prompt(self) -> str:
        """The tools and how to call them, for the system prompt."""
        schemas = self.all_tools().values()
        if not schemas:
            return ""
        if self.tool_schema == "json":
            lines = [json.dumps(schema.json_schema(), ensure_ascii=False) for schema in schemas]
            return "\n".join(
                [
                    "You can call these tools:",
                    "<tools>",
                    *lines,
                    "</tools>",
                    self._how_to_call(),
                ]
            )
        lines = ["Tools:"]
        for schema in schemas:
            lines.append(f"- {schema.signature()}" + (f": {schema.summary}" if schema.summary else ""))
            lines += [f"    {argument}: {text}" for argument, text in schema.descriptions.items()]
        return "\n".join([*lines, self._how_to_call()])

    def call(self, name: str, **arguments: Any) -> str:
        """A call written as the model is asked to write it, for worked examples and demonstrations."""
        return render_call(Call(name, arguments), self._format())

    def _format(self) -> CallFormat:
        return self.call_format or ("hermes" if self.tool_schema == "json" else "plain")

    def _how_to_call(self) -> str:
        if self._format() == "hermes":
            return 'To call one, write: <tool_call>{"name": "NAME", "arguments": {"ARGUMENT": VALUE}}</tool_call>'
        if self._format() == "plain":
            return "To call one, write a line such as: " + self._example(next(iter(self.all_tools().values())))
        fence = "```json\n{}\n```" if self._format() == "fenced" else "{}"
        return "To call one, write:\n" + fence.format('{"name": "NAME", "arguments": {"ARGUMENT": VALUE}}')

    def _example(self, schema: ToolSchema) -> str:
        """How a call of the tool looks, with its types in the place of values."""
        if self._format() == "plain":
            return f"{schema.name}({', '.join(f'{argument}=<{type_name}>' for argument, type_name in schema.types.items())})"
        return render_call(
            Call(
                schema.name,
                {argument: f"<{type_name}>" for argument, type_name in schema.types.items()},
            ),
            self._format(),
        )

    @classmethod
    def _is_async(cls) -> bool:
        functions = [getattr(cls, name) for name in cls.tools()] + [cls.answer]
        return any(inspect.iscoroutinefunction(function) for function in functions)

    async def _step(self, action: str) -> StepResult:
        calls = parse_calls(action, self.all_tools())
        if not calls:
            if getattr(self.answer, _MARK, False):  # `answer` is a tool here, so a plain message is none
                return self._error("no_call", "your message holds no tool call")
            return await _settle(self.answer(without_thoughts(action)))
        results: list[StepResult] = []
        for call in calls[: self.most_calls]:
            results.append(await self._run(call))
            if results[-1].done or results[-1].truncated or "errors" in results[-1].info:
                break
        return _join(results, left=len(calls) - len(results))

    async def _run(self, call: Call | Malformed) -> StepResult:
        """One call, whatever is wrong with it, as a result."""
        schemas = self.all_tools()
        if isinstance(call, Malformed):
            return self._error("malformed", f"the call cannot be read: {call.reason}")
        schema = schemas.get(call.name)
        if schema is None:
            near = nearest(call.name, schemas)
            return self._error(
                "unknown",
                f"there is no tool {call.name!r:.60}" + (f", did you mean {near!r}?" if near else ""),
                near,
            )
        try:
            arguments = schema.arguments(call)
        except BadArguments as error:
            return self._error("arguments", str(error), call.name)
        info = {
            "calls": [
                {
                    "name": call.name,
                    "arguments": {
                        **dict(zip(schema.types, call.positional, strict=False)),
                        **call.arguments,
                    },
                }
            ]
        }
        try:
            own = call.name in self.tools()
            value = getattr(self, call.name)(**arguments) if own else self.call_tool(call.name, arguments)
            value = await value if inspect.isawaitable(value) else value
        except AgentloopError:  # a dead browser, a missing program: a failure of the environment, and nothing that the model did
            raise
        except Exception as error:
            reason = str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}".rstrip(": ")
            return StepResult(
                f"error: {call.name}: {reason}"[:_LONGEST_ERROR],
                info={**info, "errors": {"raised": 1}},
            )
        if isinstance(value, StepResult):
            return StepResult(
                value.observation,
                value.reward,
                value.done,
                value.truncated,
                {**info, **value.info},
            )
        return StepResult(_text(value), info=info)

    def _error(self, kind: str, message: str, name: str | None = None) -> StepResult:
        """An observation that teaches: what was wrong, and what is expected."""
        schemas = self.all_tools()
        schema = schemas.get(name) if name is not None else next(iter(schemas.values()), None)
        lines = [f"error: {message}"[:_LONGEST_ERROR]]
        if kind == "unknown" and schema is None:
            schema = next(iter(schemas.values()), None)
        if kind in ("unknown", "no_call") and schemas:
            lines.append(f"tools: {', '.join(schemas)}")
        if schema is not None:
            lines.append(f"expected: {self._example(schema)}")
        return StepResult("\n".join(lines), info={"errors": {kind: 1}})


def _join(results: Sequence[StepResult], left: int) -> StepResult:
    """The results of a message's calls as one; `left` is how many calls were not run."""
    if len(results) == 1 and not left:
        return results[0]
    observation = "\n".join(result.observation for result in results)
    if left and not results[-1].done:
        observation += f"\n({left} more {'call was' if left == 1 else 'calls were'} not run)"
    info: dict[str, Any] = {}
    for result in results:
        info.update(result.info)
    info["calls"] = [call for result in results for call in result.info.get("calls", [])]
    errors = sum((Counter(result.info.get("errors", {})) for result in results), Counter())
    if errors:
        info["errors"] = dict(errors)
    return StepResult(
        observation,
        sum(r.reward for r in results),
        results[-1].done,
        results[-1].truncated,
        info,
    )


def _text(value: object) -> str:
    """A tool's result as the model reads it: text as it is, JSON values as JSON, nothing as "ok"."""
    if isinstance(value, str):
        return value
    if value is None:
        return "ok"
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


async def _settle(value: StepResult | Awaitable[StepResult]) -> StepResult:
    return await value if inspect.isawaitable(value) else value


def _finish(coroutine: Coroutine[Any, Any, StepResult]) -> StepResult:
    """The result of a coroutine that has nothing to wait for, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast(StepResult, stop.value)
    coroutine.close()
    raise RuntimeError("a tool or `answer` returned an awaitable without being declared `async def`")
