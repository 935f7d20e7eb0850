"""MiniWoB++: small tasks on web pages, in a real headless Chromium, with the page as text and mouse and keyboard as tools.

What an agent sees and does, the split, the reward and what differs from the package are in docs/environments/miniwob.md.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentloop import StepResult, Task
from agentloop.environment.base import Split
from agentloop.environment.tools import ToolEnvironment, tool

from .browser import WINDOW, Browser
from .keys import combination, strokes
from .kinds import KINDS, SEEDS
from .page import CLICK, CLOCK, EPISODE_TIME, FIND, FOCUS, HIGHLIGHT, LOOK, SCROLL, SELECT, START, TICK, render


class MiniWoB(ToolEnvironment):
    """Do what the task says on the web page. It is shown as a list of elements with their numbers in brackets. Make one call a message."""

    most_calls = 1
    concurrency = max(2, os.cpu_count() or 2)
    needs = "the package miniwob, Chromium and chromedriver (apt-get install chromium chromium-driver)"

    def __init__(self, types: str | list[str] = "all") -> None:
        """Choose task types.

        Args:
            types: One type, a list of them, or "all": the 125 that run from local files. docs/environments/miniwob.md lists them.
        """
        package = importlib.util.find_spec("miniwob")
        if package is None or package.origin is None:
            raise ModuleNotFoundError("No module named 'miniwob'", name="miniwob")
        self._pages = Path(package.origin).parent / "html" / "miniwob"
        chosen = set(KINDS if types == "all" else [types] if isinstance(types, str) else types)
        unknown = sorted(chosen - set(KINDS))
        if unknown or not chosen:
            raise ValueError(f"types holds names such as click-button, or is 'all'; found {', '.join(unknown) or 'none'}")
        self._kinds = [kind for kind in KINDS if kind in chosen]
        self._browser: Browser | None = None
        self._over = True

    def tasks(self, split: Split) -> Sequence[Task]:
        """Types take turns, so that the first tasks hold as many of each."""
        mode = "train" if split == "train" else "test"
        return [Task(f"{kind}/{seed}", {"type": kind, "seed": seed, "mode": mode}) for seed in SEEDS[split] for kind in self._kinds]

    def reset(self, task: Task) -> str:
        """Load the page anew, since some keep state over episodes, and start its episode with the task's seed."""
        page = (self._pages / f"{task.data['type']}.html").as_uri()
        if self._browser is None or self._browser.closed:
            self._browser = Browser(CLOCK)
        self._browser.open(page)
        self._browser.run(START, task.data["seed"], task.data["mode"], EPISODE_TIME)
        self._over = False
        return self._look().observation

    def step(self, action: str) -> StepResult:
        if self._over:
            return StepResult("The episode is over.", done=True)
        result = super().step(action)
        assert isinstance(result, StepResult), "all tools are sync"
        return result

    def success(self, total_reward: float) -> bool:
        """As published results count it: the raw reward is positive. A few pages give less than 1 for what is nearly right."""
        return total_reward > 0

    @tool
    def click(self, ref: int) -> StepResult:
        """Click an element."""
        self._click(ref)
        return self._look()

    @tool
    def type(self, ref: int, text: str) -> StepResult:
        """Type into an element in place of what it holds."""
        keys = strokes(text)
        found = self._find(ref)
        if not found["writable"]:
            raise ValueError(f"element {ref} takes no text")
        if found["type"] not in ("date", "time", "month"):  # a click into their middle begins with the wrong part
            self._click(ref)
        self._script(FOCUS, ref)
        self._page.press(keys)
        return self._look()

    @tool
    def select(self, ref: int, option: str) -> StepResult:
        """Choose an option of a select element."""
        outcome = self._script(SELECT, ref, option)
        if outcome[0] == "no list":
            raise ValueError(f"element {ref} is no select element; click what you want to choose")
        if outcome[0] == "no option":
            raise ValueError(f"element {ref} has no option {option!r:.60}, only {outcome[1]}")
        return self._look()

    @tool
    def scroll(self, ref: int, pixels: int) -> StepResult:
        """Scroll an element down, or up if negative."""
        found = self._script(SCROLL, ref, max(-(10**6), min(10**6, pixels)))
        if found is None:
            raise self._unknown(ref)
        return self._look(f"(scrolled to {found[0]} of {found[1]})\n")

    @tool
    def press(self, key: str) -> StepResult:
        """Press a key, such as Enter, Backspace, Down or Ctrl+C."""
        keys, modifiers = combination(key)
        self._page.press(keys, modifiers)
        return self._look()

    @tool
    def highlight(self, ref: int) -> StepResult:
        """Mark the text of an element."""
        if not self._script(HIGHLIGHT, ref):
            raise self._unknown(ref)
        return self._look()

    @tool
    def drag(self, ref: int, to: int) -> StepResult:
        """Drag an element onto another."""
        start, end = self._find(ref), self._find(to)
        return self._dragged(start["x"], start["y"], end["x"], end["y"])

    @tool
    def drag_at(self, x: int, y: int, to_x: int, to_y: int) -> StepResult:
        """Drag from a point to another; points are pixels, as in @80,120."""
        return self._dragged(x, y, to_x, to_y)

    @tool
    def click_at(self, x: int, y: int) -> StepResult:
        """Click a point."""
        self._page.click(*_inside(x, y))
        return self._look()

    @tool
    def wait(self) -> StepResult:
        """Do nothing for a second."""
        return self._look()

    def close(self) -> None:
        if self._browser is not None:
            self._browser.close()
            self._browser = None

    @property
    def _page(self) -> Browser:
        if self._browser is None:
            raise RuntimeError("reset(task) comes before step(action)")
        return self._browser

    def _script(self, script: str, *arguments: Any) -> Any:
        return self._page.run(script, *arguments)

    def _look(self, note: str = "") -> StepResult:
        """The page a second later, or the end of the episode."""
        seen = self._script(LOOK, TICK, True)
        for left in range(100, 0, -1):
            if seen is not None:
                break
            time.sleep(0.01)
            seen = self._script(LOOK, 0, left > 1)
        if seen["done"]:
            self._over = True
            reward = float(seen["reward"])
            return StepResult("Done." if reward > 0 else "That was wrong.", reward=reward, done=True)
        return StepResult(note + render(seen["told"], seen["page"]))

    def _find(self, ref: int) -> dict[str, Any]:
        """Where an element is. Raises ValueError for one that is not there."""
        found: dict[str, Any] | None = self._script(FIND, ref)
        if found is None:
            raise self._unknown(ref)
        return found

    def _unknown(self, ref: int) -> ValueError:
        return ValueError(f"there is no element {ref} on the page; use a number in brackets")

    def _click(self, ref: int) -> None:
        """With the mouse where it reaches the element, else as the package does."""
        found = self._find(ref)
        if found["reachable"]:
            self._page.click(found["x"], found["y"])
        else:
            self._script(CLICK, ref)

    def _dragged(self, x: float, y: float, to_x: float, to_y: float) -> StepResult:
        (x, y), (to_x, to_y) = _inside(x, y), _inside(to_x, to_y)
        # A drag begins with a small move, and what is dragged over notices it on the way.
        way = [(x, y), (x + (to_x > x) - (to_x < x), y + (to_y > y) - (to_y < y))]
        way += [(x + (to_x - x) * part / 5, y + (to_y - y) * part / 5) for part in range(1, 6)]
        self._page.drag([*way, (to_x, to_y)])
        return self._look()


def _inside(x: float, y: float) -> tuple[float, float]:
    """A point of the page. Raises ValueError."""
    if not (0 <= x < WINDOW[0] and 0 <= y < WINDOW[1] - 150):
        raise ValueError(f"the point {x:g},{y:g} is not on the page, which is 160 pixels wide and 210 high")
    return x, y
