"""`report.html`: one file without scripts, that opens offline and in which all text of models and environments is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from agentloop.dataset.store import open_source
from agentloop.report.plot import success_plot
from agentloop.report.summary import Summary, summarise
from agentloop.report.trajectory import Decode, Example, examples, trained_turns
from agentloop.run.artifact import write_text
from agentloop.run.directory import RunDirectory
from agentloop.trace.store import read_trees

Groups = Sequence[tuple[str, Sequence[Example]]]
"""Example trajectories under headings."""


def write_report(directory: RunDirectory, decode: Decode) -> Path:
    """Write `report.html` of a run as it stands now, atomically, and return its path."""
    write_text(directory.report, render(summarise(directory), collect_examples(directory, decode)))
    return directory.report


def render(summary: Summary, groups: Groups) -> str:
    """The report as HTML text."""
    jinja = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    success = summary.of("success")
    times = sorted(summary.seconds.items(), key=lambda item: -item[1])
    return jinja.get_template("template.html").render(
        summary=summary,
        success=success,
        plot=success_plot(success),
        times=times,
        longest=max([seconds for _, seconds in times], default=1.0) or 1.0,
        groups=groups,
    )


def collect_examples(directory: RunDirectory, decode: Decode, artifacts: int = 3) -> Groups:
    """Examples of the last few tree artifacts of the run, the newest first."""
    entries = list(directory.journal.finished_entries())
    rows = (
        row
        for entry in entries
        for output in entry.outputs.values()
        if output.type == "rows" and (directory.path / output.path).exists()
        for row in open_source(directory.path / output.path)
    )
    trained = trained_turns(rows)
    groups: list[tuple[str, Sequence[Example]]] = []
    for entry in reversed(entries):
        for output in entry.outputs.values():
            path = directory.path / output.path
            if output.type != "trees" or not path.exists() or len(groups) == artifacts:
                continue
            groups.append((entry.stage, examples(read_trees(path), trained, decode)))
    return groups
