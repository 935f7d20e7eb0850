"""What the terminal says while a recipe runs: a line when a stage begins, and one when it is finished."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape

from agentloop.loop.context import FINAL, StageRun
from agentloop.loop.runner import Observer
from agentloop.run.journal import Entry


class Narrator(Observer):
    """Prints to standard error, so that a command's own output stays clean.

    Attributes:
        console: Where it prints.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._shown = ""

    def kept(self, runs: list[StageRun]) -> None:
        """Say how much was done before."""
        self.console.print(f"going on: {len(runs)} stages were finished before", style="dim")

    def stage_started(self, run: StageRun, iterations: int) -> None:
        """Head an iteration once, then name its stages."""
        heading = "final" if run.label == FINAL else f"iteration {run.iteration + 1} of {iterations}"
        if heading != self._shown:
            self._shown = heading
            self.console.rule(heading, align="left")
        self.console.print(f"[bold]{escape(run.stage.kind)}[/bold] {escape(run.stage.id)} …")

    def stage_ended(self, run: StageRun, entry: Entry) -> None:
        """Say what the stage found, how long it took and what broke."""
        note = escape(str(entry.about.get("note", "")))
        waits = "".join(f", {name} {seconds:.0f} s" for name, seconds in entry.about.get("waits", {}).items() if seconds >= 1)
        self.console.print(f"  {note}  [dim]({entry.seconds:.0f} s{waits})[/dim]", highlight=False)
        if entry.failures:
            broken = ", ".join(f"{kind} {count}" for kind, count in entry.failures.items())
            self.console.print(f"  [red]broken episodes:[/red] {escape(broken)}", highlight=False)
