"""The stages, one file a kind: each a function from a `StageRun` and the run's `Context` to an `Outcome`.

A stage reads artifacts through `agentloop.loop.references`, writes its own so that they appear by a rename, and leaves the journal to the
runner. Run again after a
kill, it gives the same outcome as if it had run once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from agentloop.loop.context import Context, Outcome, StageRun
from agentloop.loop.stages.build import build
from agentloop.loop.stages.evaluate import evaluate
from agentloop.loop.stages.gate import gate
from agentloop.loop.stages.judge import judge
from agentloop.loop.stages.sample import sample
from agentloop.loop.stages.train import train

STAGES: dict[str, Callable[[StageRun, Context], Awaitable[Outcome]]] = {
    "sample": sample,
    "judge": judge,
    "build": build,
    "train": train,
    "evaluate": evaluate,
    "gate": gate,
}
"""What runs a stage of each kind; `agentloop.recipe.available` refuses the kinds that are not here."""
