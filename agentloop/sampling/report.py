"""What a `sample` stage tells of itself when it has ended, whatever its method."""

from __future__ import annotations

from dataclasses import dataclass

from agentloop.trace.tree import Failure


@dataclass(frozen=True, slots=True)
class SamplingReport:
    """What a stage played. Numbers are of this attempt, `resumed` apart; trees of earlier attempts are in the sink.

    Of a search, what is counted as an episode (`episodes`, `resumed`, `finished`, `succeeded`, `most_alive`) is a whole tree, and it
    succeeded if one of its paths did; `failures` counts candidates that broke.

    Attributes:
        episodes: Episodes that the stage has in all, those apart that a token budget left out.
        resumed: Of these, finished by an earlier attempt.
        finished: Finished now.
        succeeded: Of those finished now, successful.
        failures: Failed episodes by kind.
        first_failures: The first failure of each kind, retried ones included, with its traceback.
        retried: Attempts that failed and were played again, by kind.
        truncated: Episodes cut short, by what cut them.
        fresh: Contexts started afresh after the first turn, by reason: "template", "window", "summary".
        turns: Turns played.
        prompt_tokens: Prompt tokens sent, those of failed and retried episodes included.
        cached_tokens: Of these, taken from the engine's prefix cache.
        generated_tokens: Tokens generated, those of failed and retried episodes included.
        seconds: Wall-clock seconds of the stage.
        engine_seconds: Sum over requests of the seconds at the engine.
        environment_seconds: Sum over episodes of the seconds in reset and step.
        most_at_engine: Most requests that were at the engine at once.
        most_alive: Most episodes that were alive at once.
        simulations: Walks of a search.
        expansions: Nodes that it expanded.
        duplicates: Candidates that did what another one did.
        restored: States that were reached from a snapshot.
        replayed: Actions that were played again to reach a state.
    """

    episodes: int
    resumed: int
    finished: int
    succeeded: int
    failures: dict[str, int]
    first_failures: dict[str, Failure]
    retried: dict[str, int]
    truncated: dict[str, int]
    fresh: dict[str, int]
    turns: int
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    seconds: float
    engine_seconds: float
    environment_seconds: float
    most_at_engine: int
    most_alive: int
    simulations: int = 0
    expansions: int = 0
    duplicates: int = 0
    restored: int = 0
    replayed: int = 0
