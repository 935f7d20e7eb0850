"""One headless Chromium with a driver, a folder and a lifetime of its own: nothing of it outlives `close`, or the process that made it.

Whatever the browser and its driver write goes into one temporary folder whose name holds the process id of its owner, so that the
next browser that is started anywhere on the machine can sweep away what a killed owner left behind. A browser that dies, or does not
answer in time, is an `EnvironmentFailure` of kind "environment.crash"; it is closed then, and its owner starts another.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from agentloop.environment.failure import EnvironmentFailure
from agentloop.errors import Mistake

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DRIVERS = ("chromedriver", "chromium.chromedriver")
INSTALL = "apt-get install chromium chromium-driver"
WINDOW = (500, 420)
"""Width and height of the window in pixels; a page of MiniWoB++ is 160 x 210 and some hang menus and dialogs outside."""
SECONDS = 20
"""Longest wait for an answer of the driver."""

FLAGS = (
    "--headless",
    "--no-sandbox",  # as root, and in most containers, there is no other way; only local files are opened
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--disable-extensions",
    "--lang=en-US",
    "--force-device-scale-factor=1",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no page reaches a network
)

_PREFIX = "agentloop-browser-"
_lock = threading.Lock()


class Browser:
    """A running browser with one page open. Bound to the thread that made it."""

    def __init__(self, preload: str = "") -> None:
        """Start it; takes about a second.

        Args:
            preload: A script that runs in every page before the page's own.

        Raises:
            Mistake: No browser or no driver is installed.
            EnvironmentFailure: It did not start.
        """
        from selenium import webdriver

        binary, driver = find_programs()
        sweep()
        folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        options = webdriver.ChromeOptions()
        options.binary_location = binary
        options.unhandled_prompt_behavior = "dismiss"
        for flag in (*FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={WINDOW[0]},{WINDOW[1]}"):
            options.add_argument(flag)
        home = {"TMPDIR": str(folder), "HOME": str(folder), "TZ": "UTC", "LANG": "en_US.UTF-8", "LANGUAGE": "en_US"}
        service = webdriver.ChromeService(executable_path=driver, env={**os.environ, **home})
        self._release = weakref.finalize(self, _release, folder, service)  # at the end of the process too
        try:
            self._driver: Chrome = webdriver.Chrome(service=service, options=options)
            self._driver.command_executor.client_config.timeout = SECONDS
            self._driver.set_page_load_timeout(SECONDS)
            self._driver.set_script_timeout(SECONDS)
            self._driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": preload})
        except Exception as error:
            self.close()
            raise _crash("could not be started", error) from error

    @property
    def closed(self) -> bool:
        """Whether it was closed, by its owner or because it died."""
        return not self._release.alive

    def open(self, url: str) -> None:
        """Load a page, and wait until it has loaded."""
        with self._alive(f"loading {url}"):
            self._driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script in the page returns, as JSON values."""
        with self._alive("running a script"):
            return self._driver.execute_script(script, *arguments)

    def click(self, x: float, y: float) -> None:
        """Press and release the left button at a point of the window."""
        self.drag([(x, y)])

    def drag(self, points: Sequence[tuple[float, float]]) -> None:
        """Press the left button at the first point, go through the others, release it at the last."""
        from selenium.webdriver import ActionChains

        with self._alive("moving the mouse"):
            chain = ActionChains(self._driver, duration=0)
            pointer = chain.w3c_actions.pointer_action
            pointer.move_to_location(round(points[0][0]), round(points[0][1]))
            pointer.pointer_down()
            for x, y in points[1:]:
                pointer.move_to_location(round(x), round(y))
            pointer.pointer_up()
            chain.w3c_actions.perform()

    def press(self, keys: Sequence[str], modifiers: Sequence[str] = ()) -> None:
        """Press keys one after another while modifiers are held down; keys are characters or WebDriver's code points."""
        from selenium.webdriver import ActionChains

        with self._alive("pressing keys"):
            chain = ActionChains(self._driver, duration=0)
            for modifier in modifiers:
                chain.key_down(modifier)
            for key in keys:
                chain.w3c_actions.key_action.key_down(key)
                chain.w3c_actions.key_action.key_up(key)
            for modifier in reversed(modifiers):
                chain.key_up(modifier)
            chain.w3c_actions.perform()

    def close(self) -> None:
        """End every process and remove the folder; idempotent, and never raises."""
        driver = getattr(self, "_driver", None)
        if driver is not None and not self.closed:
            with suppress(Exception):
                driver.command_executor.close()
        self._release()

    @contextmanager
    def _alive(self, doing: str) -> Iterator[None]:
        """Calls of the driver, with whatever tells of a dead or silent browser turned into a failure."""
        from selenium.common.exceptions import JavascriptException, WebDriverException
        from urllib3.exceptions import HTTPError

        if self.closed:
            raise EnvironmentFailure("environment.crash", f"the browser is closed; it was asked for while {doing}")
        try:
            yield
        except JavascriptException:
            raise
        except (WebDriverException, HTTPError, OSError) as error:
            self.close()
            raise _crash(f"died or did not answer while {doing}", error) from error


def find_programs() -> tuple[str, str]:
    """The browser and its driver: those that MiniWoB++'s environment variables name, else those on the path.

    Raises:
        Mistake: One is missing, or one of the two variables.
    """
    named = [os.environ.get(name, "") for name in ("MINIWOB_CHROME_BINARY", "MINIWOB_CHROMEDRIVER")]
    if all(named):
        return named[0], named[1]
    if any(named):
        raise Mistake("MINIWOB_CHROME_BINARY and MINIWOB_CHROMEDRIVER are set together or not at all, since their versions must agree")
    found = [next(filter(None, map(shutil.which, names)), None) for names in (BROWSERS, DRIVERS)]
    if found[0] is None or found[1] is None:
        missing = " and ".join(what for what, path in zip(("Chromium", "its driver (chromedriver)"), found, strict=True) if path is None)
        raise Mistake(f"environment 'miniwob' needs {missing}; install with: {INSTALL}")
    return found[0], found[1]


def sweep() -> None:
    """End and remove what browsers left behind whose owner was killed."""
    with _lock:
        for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
            owner = re.match(rf"{_PREFIX}(\d+)-", folder.name)
            if owner and not psutil.pid_exists(int(owner[1])):
                _end(_using(folder))
                shutil.rmtree(folder, ignore_errors=True)


def _release(folder: Path, service: Any) -> None:
    """Kill the driver, the browser and all that they started, then remove their folder."""
    process = getattr(service, "process", None)
    started = _using(folder)
    if process is not None:
        with suppress(psutil.Error):
            started = [psutil.Process(process.pid), *started]
    _end(started)
    if process is not None:
        with suppress(Exception):
            process.wait(5)
            if process.stdin is not None:
                process.stdin.close()
    for _ in range(5):  # a process that is ending may still write
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return


def _using(folder: Path) -> list[psutil.Process]:
    """Processes that have the folder on their command line: the browser, whoever its parent is by now."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in part for part in process.info["cmdline"] or ()):
            found.append(process)
    return found


def _end(processes: list[psutil.Process]) -> None:
    """Kill processes and all their descendants, and wait until they are gone."""
    doomed = {process.pid: process for process in processes}
    for process in processes:
        with suppress(psutil.Error):
            doomed |= {child.pid: child for child in process.children(recursive=True)}
    for process in doomed.values():
        with suppress(psutil.Error):
            process.kill()
    deadline = time.monotonic() + SECONDS
    while any(map(_runs, doomed.values())) and time.monotonic() < deadline:
        time.sleep(0.01)


def _runs(process: psutil.Process) -> bool:
    """Whether a process still holds anything; a zombie whose parent does not ask for it does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _crash(what: str, error: Exception) -> EnvironmentFailure:
    reason = (str(error).strip().splitlines() or [""])[0]
    return EnvironmentFailure("environment.crash", f"the browser {what}: {type(error).__name__}: {reason:.200}")
