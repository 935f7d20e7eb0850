"""One ScienceWorld simulator: a Java process with a bounded heap, spoken to through py4j.

The package's own `ScienceWorldEnv` starts its process with the default heap, which grows past a gigabyte, opens a callback server that
nothing calls, lists all valid actions after each step (119 ms, where the step itself takes 15), and waits without end for one that hangs.
So this drives the package's Java interface, `scienceworld.runtime.pythonapi.PythonInterface`, directly.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import subprocess
from dataclasses import dataclass
from typing import Any

import py4j.java_gateway as py4j
from py4j.protocol import Py4JError
from scienceworld.constants import BASEPATH, JAR_PATH

from agentloop.errors import Mistake

JAVA_OPTIONS = (
    "-Xmx256m",  # about 330 MB a process in all
    "-XX:+UseSerialGC",  # no threads for collecting garbage that would take other processes' cores
    "-XX:+IgnoreUnrecognizedVMOptions",
    "-XX:+UnlockExperimentalVMOptions",
    "-XX:hashCode=2",  # the same for every object: what is kept in hash tables is told in the order in which it came, the same each time
)
"""Up to its version 1.2 the simulator goes through its objects by their identity hash, which is drawn anew in each process."""

START_TIMEOUT = 60.0
CALL_TIMEOUT = 100.0
"""Seconds; some of the genetics tasks take a dozen to load on an idle machine."""

logging.getLogger("py4j").setLevel(logging.CRITICAL)  # it logs what it also raises


class SimulatorDied(RuntimeError):
    """The Java process ended, or does not answer; the message says which."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step came to: the text, the score so far (-100 to 100, negative for a failure) and whether the task is over."""

    text: str
    score: int
    over: bool


class Simulator:
    """A running simulator. It holds one episode at a time, and is closed by whoever made it."""

    def __init__(self) -> None:
        """Start the process. Raises `Mistake` if there is no Java, `SimulatorDied` if it does not start."""
        command = [find_java(), *JAVA_OPTIONS, "-classpath", os.pathsep.join((py4j.find_jar_path(), JAR_PATH)), "py4j.GatewayServer"]
        # It ends when its standard input does, so it cannot outlive this process; its own session keeps a Ctrl-C meant for us from it.
        self.process = subprocess.Popen(
            [*command, "--die-on-broken-pipe", "--enable-auth", "0"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=BASEPATH,  # it reads a table of types there, and would write a new one elsewhere
            start_new_session=True,
        )
        self._gateway: Any = None
        try:
            port, token = self._greeting()
            parameters = py4j.GatewayParameters(port=port, auth_token=token, read_timeout=CALL_TIMEOUT, auto_field=True)
            self._gateway = py4j.JavaGateway(gateway_parameters=parameters)
            jvm = self._gateway.jvm
            jvm.java.lang.System.setOut(jvm.java.io.PrintStream(os.devnull))  # it prints pages at every step, into a pipe that nobody reads
            self._interface = jvm.scienceworld.runtime.pythonapi.PythonInterface()
        except (Py4JError, OSError, ValueError) as error:
            self.close()
            raise SimulatorDied(f"the Java process did not start: {type(error).__name__}: {error}") from error
        except BaseException:
            self.close()
            raise

    def load(self, task: str, variation: int, simplifications: str, *, gold: bool = False) -> None:
        """Begin a task anew; with `gold`, find its gold path first, which takes as long as the task has actions."""
        error = self._call("load", task, variation, simplifications, gold)
        if error:
            raise SimulatorDied(str(error))

    def step(self, action: str) -> Outcome:
        """Act. The process itself can be asked once a step more than is needed; nothing is listed."""
        text = str(self._call("step", action))
        score = round(100 * float(self._call("getScore")))
        return Outcome(text, score, score < 0 or bool(self._call("getCompleted")))

    def description(self) -> str:
        """What is to be done."""
        return str(self._call("getTaskDescription"))

    def valid_actions(self) -> list[str]:
        """All actions that would be carried out now; takes ten times as long as a step."""
        return sorted({str(action) for action in self._call("getValidActionObjectCombinations")})

    def gold_path(self) -> list[str]:
        """The gold path of the task that was last loaded with `gold`."""
        return [str(action) for action in self._call("getGoldActionSequence")]

    def counts(self) -> dict[str, int]:
        """How many variations each task has."""
        return {str(name): int(self._call("getTaskMaxVariations", name)) for name in self._call("getTaskNames")}

    def split(self) -> tuple[list[int], list[int], list[int]]:
        """The train, dev and test variations of the task that is loaded."""
        train, dev, test = (list(self._call(name)) for name in ("getVariationsTrain", "getVariationsDev", "getVariationsTest"))
        return train, dev, test

    def close(self) -> None:
        """End the process, gently and then not; idempotent. Returns when it is gone."""
        if self._gateway is not None:
            self._gateway.close()
            self._gateway = None
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        try:
            self.process.wait(3)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _greeting(self) -> tuple[int, str]:
        """The port and the token that the process writes when it is ready."""
        stream = self.process.stdout
        assert stream is not None
        ready, _, _ = select.select([stream], [], [], START_TIMEOUT)
        if not ready:
            raise SimulatorDied(f"waited {START_TIMEOUT:g} s for the Java process to start, in vain")
        lines = stream.readline().strip(), stream.readline().strip()
        if not all(lines):
            code = self.process.wait(3)
            raise SimulatorDied(f"the Java process ended at once with exit code {code}; does `{find_java()} -version` work?")
        stream.close()
        return int(lines[0]), lines[1].decode()

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call the Java interface. Raises `SimulatorDied` if the process does not answer; it is then not to be used any more."""
        if self._gateway is None:
            raise SimulatorDied("the simulator is closed")
        try:
            return getattr(self._interface, method)(*arguments)
        except (Py4JError, OSError) as error:
            try:
                code = self.process.wait(1)  # the connection breaks a moment before the process is gone
            except subprocess.TimeoutExpired:
                reason = (
                    f"the Java process has not answered {method}() within {CALL_TIMEOUT:g} s, or raised: {type(error).__name__}: {error}"
                )
            else:
                reason = f"the Java process died in {method}() with exit code {code}"
            self.close()
            raise SimulatorDied(reason) from error


def find_java() -> str:
    """The `java` of JAVA_HOME or of the path. Raises `Mistake` if there is none."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=os.path.join(home, "bin")) if home else None
    java = java or shutil.which("java")
    if java is None:
        raise Mistake(
            "environment 'scienceworld' needs Java 8 or newer, and there is no java in JAVA_HOME or on the path; on Debian and Ubuntu: "
            "sudo apt install default-jre-headless"
        )
    return java
