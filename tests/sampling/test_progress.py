"""The progress line: its numbers, and when a log gets one."""

from __future__ import annotations

import io

from agentloop.sampling.progress import LiveLine, LogLines, Progress, Quiet, display
from agentloop.sampling.settings import SampleSettings
from tests.sampling.world import sample


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_line_shows_episodes_success_tokens_a_second_and_failures_by_kind() -> None:
    clock = Clock()
    progress = Progress("trees", 100, clock=clock)
    assert progress.line() == "trees: 0/100 episodes · 0 tokens/s · 0:00"
    clock.now += 75
    progress.resumed, progress.finished, progress.succeeded, progress.generated = 10, 20, 5, 1500
    progress.retried.update({"environment.step": 1})
    progress.failures.update({"environment.timeout": 1, "engine.crash": 2})
    assert progress.done == 33
    assert progress.line() == (
        "trees: 33/100 episodes · 10 of them before · success 25% · 20 tokens/s · failed engine.crash 2, environment.timeout 1"
        " · retried environment.step 1 · 1:15"
    )


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end() -> None:
    clock, stream = Clock(), io.StringIO()
    progress = Progress("trees", 3, clock=clock)
    with LogLines(stream, every=10, clock=clock) as lines:
        for now in (101.0, 105.0, 110.0, 111.0, 119.0, 121.0, 122.0):
            clock.now = now
            lines.update(progress)
        assert [line.split(" · ")[-1] for line in stream.getvalue().splitlines()] == ["0:10", "0:21"]
        progress.finished = 3
        lines.update(progress)
    assert stream.getvalue().splitlines()[-1].startswith("trees: 3/3 episodes")
    assert len(stream.getvalue().splitlines()) == 3, "the last line is not said twice"


def test_a_terminal_gets_a_live_line_a_log_gets_lines_and_quiet_gets_nothing() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(display(Terminal()), LiveLine)
    assert isinstance(display(io.StringIO()), LogLines)
    assert type(display(Terminal(), quiet=True)) is Quiet
    terminal = Terminal()
    with display(terminal) as live:
        live.update(Progress("[bold]trees", 3))
    assert "[bold]trees: 0/3 episodes" in terminal.getvalue(), "a name is text and never markup"


async def test_sampling_reports_as_it_goes() -> None:
    seen: list[tuple[int, int, int]] = []

    class Watch(Quiet):
        def update(self, progress: Progress) -> None:
            seen.append((progress.done, progress.turns, progress.generated))

    trees, report = await sample(settings=SampleSettings(samples=3, max_tokens=16), display=Watch())
    assert seen[0] == (0, 0, 0)
    turns = [turn for tree in trees for turn in tree.turns]
    assert seen[-1] == (12, len(turns), sum(len(turn.completion_ids) for turn in turns)) == (12, report.turns, report.generated_tokens)
    assert seen == sorted(seen) and len(seen) == 1 + 12 + len(turns), "after every turn and every episode"
