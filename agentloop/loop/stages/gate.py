"""`gate`: decides by a measurement which adapter the next iteration starts from."""

from __future__ import annotations

from agentloop.errors import RunFailed
from agentloop.loop import references
from agentloop.loop.context import Context, Outcome, StageRun
from agentloop.loop.lineage import Incumbent, decide
from agentloop.recipe.measure import Gate


async def gate(run: StageRun, context: Context) -> Outcome:
    """Adopt the current adapter if it beats the best so far by the margin, else return to the best.

    The bare base is the first incumbent: it is defended if the measurement compared to it (`compare_to: base`), and given up otherwise.
    """
    stage = run.stage
    assert isinstance(stage, Gate)
    candidate = context.lineage.playing(stage.role)
    values = _values(run, context, stage)
    if candidate not in values:
        raise RunFailed(f"gate {run.key} found no measurement of {stage.metric!r} for {candidate}; it has {', '.join(values) or 'none'}")
    incumbent = context.lineage.best.get(stage.role) or Incumbent(value=values.get(Incumbent().adapter))
    margin = stage.margin.at(run.schedule_at)
    if stage.keep == "last":
        incumbent = Incumbent(incumbent.adapter)
    kept = decide(candidate=candidate, value=values[candidate], incumbent=incumbent, margin=margin)
    before = "not measured" if incumbent.value is None else f"{incumbent.value:.3f}"
    note = f"{'adopted' if kept.adapter == candidate else 'refused'} {candidate}: {stage.metric} {values[candidate]:.3f} against {before}"
    decision = {
        "role": stage.role,
        "candidate": candidate,
        "best": kept.adapter,
        "value": kept.value,
        "metric": stage.metric,
        "margin": margin,
    }
    return Outcome(about={"gate": decision, "note": note})


def _values(run: StageRun, context: Context, stage: Gate) -> dict[str, float]:
    """The metric's value by adapter, from the measurements that the gate reads."""
    return {
        str(measurement["adapter"]): float(measurement["value"])
        for reference in stage.from_
        for entry in references.entries(reference, run, context.directory)
        for measurement in entry.measurements
        if measurement["name"] == stage.metric
    }
