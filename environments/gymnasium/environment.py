"""Any Gymnasium environment whose observations can be said in words, by a few lines of YAML.

    environment: {id: gymnasium, name: FrozenLake-v1, keywords: {is_slippery: false}, actions: [left, down, right, up]}

What becomes of observations and actions, and the split by seeds, are in docs/environments/gymnasium.md.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from agentloop import Environment, StepResult, Task
from agentloop.environment.base import Split
from agentloop.errors import Mistake, nearest

from .words import Unreadable, plain, read_action, shown

ACTIONS = {
    "FrozenLake-v1": ("left", "down", "right", "up"),
    "FrozenLake8x8-v1": ("left", "down", "right", "up"),
    "CliffWalking-v1": ("up", "right", "down", "left"),
    "Taxi-v4": ("south", "north", "east", "west", "pick up", "drop off"),
    "Blackjack-v1": ("stick", "hit"),
    "MountainCar-v0": ("left", "none", "right"),
    "CartPole-v1": ("left", "right"),
}
"""Names of actions that Gymnasium has in its documentation only."""

FIRST_SEED: dict[Split, int] = {"train": 0, "dev": 1_000_000, "test": 2_000_000}
"""Where each split's seeds begin."""

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_HERE = re.compile(r"\x1b\[[0-9;]*m([^\x1b]*)\x1b\[[0-9;]*m")


class Gymnasium(Environment):
    """Play any Gymnasium environment in words."""

    def __init__(
        self,
        name: str = "FrozenLake-v1",
        keywords: dict[str, Any] | None = None,
        module: str = "",
        actions: list[str] | None = None,
        observe: Literal["auto", "render", "observation"] = "auto",
        prompt: str = "",
        success: float = 1.0,
        tasks: dict[Split, Annotated[int, Field(ge=0)]] | None = None,
        steps: Annotated[int, Field(ge=1)] | None = None,
    ) -> None:
        """Say which environment.

        Args:
            name: Its id in Gymnasium's registry.
            keywords: Keyword arguments of `gymnasium.make`.
            module: A module to import first, which registers it.
            actions: Names of its actions, in order, where they are numbers.
            observe: "render" shows its text rendering (`render_mode="ansi"`), "observation" the observation itself, "auto" the first
                that there is.
            prompt: The system prompt; by default the environment's name, and its actions.
            success: Return from which an episode counts as solved.
            tasks: How many seeds each split has; by default 1000 train, 200 dev and 200 test.
            steps: Steps after which it is cut; by default as it is registered.
        """
        import gymnasium

        if module:
            _import(module)
        options = dict(keywords or {})
        known = gymnasium.envs.registration.registry
        if ":" not in name and name not in known:
            raise Mistake(f"Gymnasium knows no environment {name!r}", expected="an id that is registered; module imports what registers it",
                          nearest=nearest(name, known))  # fmt: skip
        modes = _render_modes(name)
        self._rendered = observe == "render" or (observe == "auto" and "ansi" in modes)
        if self._rendered:
            options.setdefault("render_mode", "ansi")
        if steps is not None:
            options["max_episode_steps"] = steps
        try:
            self._game: Any = gymnasium.make(name, **options)
        except TypeError as error:
            raise ValueError(f"keywords do not fit: {error}") from error
        except gymnasium.error.Error as error:
            raise ValueError(str(error)) from error
        self._space = self._game.action_space
        self._names = self._action_names(name, actions)
        self._name, self._prompt, self._success = name, prompt, success
        self._counts = {"train": 1000, "dev": 200, "test": 200} if tasks is None else dict(tasks)
        self._over = True
        self._mask: Any = None

    def tasks(self, split: Split) -> Sequence[Task]:
        """A task is a seed; those of a split are its own."""
        first = FIRST_SEED[split]
        return [Task(f"{split}-{index}", {"seed": first + index}) for index in range(self._counts.get(split, 0))]

    def system_prompt(self) -> str:
        if self._prompt:
            return self._prompt
        said = f"one of: {', '.join(self._names)}" if self._names else f"a value of {str(self._space)[:200]}, written as JSON"
        if type(self._space).__name__ == "Text":
            said = "text"
        return f"You play {self._name.split('/')[-1].rpartition('-v')[0] or self._name}. Answer each message with one action, {said}."

    def reset(self, task: Task) -> str:
        seed = int(task.data["seed"])
        self._space.seed(seed)
        observation, info = self._game.reset(seed=seed)
        self._over, self._mask = False, info.get("action_mask")
        return self._text(observation)

    def step(self, action: str) -> StepResult:
        if self._over:
            raise RuntimeError("reset(task) comes before step(action)")
        try:
            chosen = read_action(action, self._space, self._names)
        except Unreadable as error:
            return StepResult(f"{error}.", info={"errors": {"malformed": 1}})
        observation, reward, done, cut, info = self._game.step(chosen)
        self._over = bool(done or cut)
        self._mask = info.get("action_mask")
        return StepResult(
            self._text(observation), float(reward), bool(done), bool(cut), {"action": plain(chosen), "gymnasium": plain(info)}
        )

    def actions(self) -> Sequence[str] | None:
        """The names of a discrete space's actions, those alone that `action_mask` allows where the environment has one; else None."""
        if not self._names or self._over:
            return () if self._names else None
        return self._names if self._mask is None else [name for name, open in zip(self._names, self._mask, strict=True) if open]

    def success(self, total_reward: float) -> bool:
        return total_reward >= self._success

    def close(self) -> None:
        self._game.close()

    def _action_names(self, name: str, given: list[str] | None) -> tuple[str, ...]:
        if type(self._space).__name__ != "Discrete":
            if given:
                raise ValueError(f"actions have names where they are numbers; here they are {str(self._space)[:100]}")
            return ()
        count = int(self._space.n)
        usual = ACTIONS.get(name.rpartition("/")[2], tuple(str(int(self._space.start) + index) for index in range(count)))
        names = tuple(given) if given is not None else usual
        if len(names) != count or len({one.casefold() for one in names}) != count:
            raise ValueError(f"there are {count} actions, and {len(set(names))} names for them: {', '.join(names)}")
        return names

    def _text(self, observation: Any) -> str:
        if not self._rendered:
            return shown(observation)
        text = self._game.render()
        # Toy games mark the player's place by a colour alone: brackets say the same.
        return _COLOUR.sub("", _HERE.sub(r"[\1]", str(text))).strip("\n")


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise Mistake(f"there is no module {module!r}", expected="the name of a module that can be imported") from error


def _render_modes(name: str) -> Sequence[str]:
    """How an environment can be rendered; nothing where that is only known once it is made."""
    import gymnasium

    try:
        creator = gymnasium.envs.registration.load_env_creator(gymnasium.spec(name).entry_point)
    except Exception:
        return ()
    return tuple(getattr(creator, "metadata", {}).get("render_modes", ()))
