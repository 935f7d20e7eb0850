"""Any OpenEnv server as an environment, by its address.

    environment: {id: openenv, url: "http://127.0.0.1:8000"}

What becomes of actions and observations is in docs/environments/openenv.md.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from agentloop import StepResult, Task
from agentloop.environment.base import Split
from agentloop.environment.json_schema import ToolSchema, describe_schema
from agentloop.environment.tools import ToolEnvironment
from agentloop.errors import Mistake

from .session import ActionRefused, Session

FIRST_SEED: dict[Split, int] = {"train": 0, "dev": 1_000_000, "test": 2_000_000}
"""Where each split's seeds begin."""


class OpenEnv(ToolEnvironment):
    """Act in the environment of an OpenEnv server."""

    step_timeout = 300.0  # the session's own limit comes first

    def __init__(
        self,
        url: str = "",
        field: str = "",
        observe: list[str] | None = None,
        prompt: str = "",
        reset: dict[str, Any] | None = None,
        success: float = 1.0,
        tasks: dict[Split, Annotated[int, Field(ge=0)]] | None = None,
        timeout: Annotated[float, Field(gt=0)] = 60.0,
    ) -> None:
        """Say where the server is.

        Args:
            url: Its address.
            field: The field of an action that a message is written into; by default the one that is text, where an action needs no
                other. Else an action is a call of the tool `act`.
            observe: Fields of an observation that are shown, in order; by default all.
            prompt: The system prompt; by default what the server says of itself.
            reset: Further parameters of every reset.
            success: Return from which an episode counts as solved.
            tasks: How many seeds each split has; by default 1000 train, 200 dev and 200 test.
            timeout: Longest answer of the server, in seconds.
        """
        if importlib.util.find_spec("websockets") is None:
            raise ModuleNotFoundError("No module named 'websockets'", name="websockets")
        if not url:
            raise Mistake(
                "environment 'openenv' needs the option url: a server that runs, for example one of "
                "pip install openenv-core (in a virtual environment of its own), started with uvicorn",
                expected="for example url: http://127.0.0.1:8000",
            )
        self._session = Session(url, timeout)
        self._field, self._observe, self._prompt = field, observe, prompt
        self._reset, self._success = dict(reset or {}), success
        self._counts = {"train": 1000, "dev": 200, "test": 200} if tasks is None else dict(tasks)
        self._action: ToolSchema | None = None
        self._over = True

    def tasks(self, split: Split) -> Sequence[Task]:
        """A task is a seed, which the server's reset is given; those of a split are its own."""
        first = FIRST_SEED[split]
        return [Task(f"{split}-{index}", {"seed": first + index}) for index in range(self._counts.get(split, 0))]

    def more_tools(self) -> Mapping[str, ToolSchema]:
        """`act` with the fields of an action; none where an action is one text, which is the message itself."""
        schema = self._schema()
        return {} if self._field else {"act": schema}

    def system_prompt(self) -> str:
        self._schema()
        if not self._prompt:
            about = self._session.get("/metadata")
            self._prompt = str(about.get("description") or about.get("name") or "Act in the environment.")
        return "\n\n".join(part for part in (self._prompt, self.tools_prompt()) if part)

    def reset(self, task: Task) -> str:
        self._schema()
        found = self._session.ask("reset", {**self._reset, "seed": int(task.data["seed"])})
        self._over = False
        return self._text(found)

    def step(self, action: str) -> StepResult:
        """The message is the action, where one field is all that there is; else it calls `act`."""
        if self._over:
            raise RuntimeError("reset(task) comes before step(action)")
        if self._field:
            return self._act({self._field: action})
        result = super().step(action)
        assert isinstance(result, StepResult)
        return result

    def call_tool(self, name: str, arguments: dict[str, Any]) -> StepResult:
        schema = self._schema()
        given = {key: value for key, value in arguments.items() if key in schema.required or value != schema.defaults.get(key)}
        return self._act(given)

    def success(self, total_reward: float) -> bool:
        return total_reward >= self._success

    def close(self) -> None:
        self._session.close()

    def _act(self, data: dict[str, Any]) -> StepResult:
        try:
            found = self._session.ask("step", data)
        except ActionRefused as error:
            return StepResult(f"error: {error}"[:300], info={"errors": {"arguments": 1}})
        self._over = bool(found.get("done"))
        return StepResult(self._text(found), float(found.get("reward") or 0.0), self._over)

    def _schema(self) -> ToolSchema:
        """The schema of an action, asked for once; it also decides which field a message is written into."""
        if self._action is None:
            schema = dict(self._session.get("/schema").get("action") or {})
            fields = {name: value for name, value in (schema.get("properties") or {}).items() if name != "metadata"}
            if self._field and self._field not in fields:
                expected = f"one of {', '.join(fields)}"
                raise Mistake(f"an action of {self._session.url} has no field {self._field!r}", expected=expected)
            needed = set(schema.get("required") or fields)
            if not self._field and len(needed) == 1 and fields.get(next(iter(needed)), {}).get("type") == "string":
                self._field = "" if "enum" in fields[next(iter(needed))] else next(iter(needed))
            about = str(schema.get("description") or "Act.")
            self._action = describe_schema("act", about, {**schema, "properties": fields})
        return self._action

    def _text(self, found: Mapping[str, Any]) -> str:
        """An observation as text: a single field alone, several with a line each; text as it is, anything else as JSON."""
        observation = dict(found.get("observation") or {})
        if self._observe is not None:
            missing = [name for name in self._observe if name not in observation]
            if missing:
                raise Mistake(
                    f"an observation of {self._session.url} has no field {missing[0]!r}", expected=f"some of {', '.join(observation)}"
                )
            observation = {name: observation[name] for name in self._observe}
        shown = {key: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for key, value in observation.items()}
        return next(iter(shown.values())) if len(shown) == 1 else "\n".join(f"{key}: {value}" for key, value in shown.items())
