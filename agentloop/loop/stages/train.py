"""`train`: makes the next version of a role's adapter from rows, in a process of its own, and proves that the engine serves it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from agentloop.dataset.store import open_source
from agentloop.engine.adapter import adapter_version
from agentloop.engine.base import AdapterVersion
from agentloop.errors import RunFailed
from agentloop.loop import references, stores
from agentloop.loop.context import Context, Outcome, StageRun
from agentloop.loop.stages.online import Rounds, together
from agentloop.loop.stages.policy import policy_options
from agentloop.recipe.train import PolicyTrain, PreferenceTrain, SupervisedTrain, Train
from agentloop.run.artifact import remove
from agentloop.run.journal import Output
from agentloop.trace.hash import content_hash
from agentloop.training.exchange import Round
from agentloop.training.job import Trained, TrainingJob
from agentloop.training.launch import train as launch


async def train(run: StageRun, context: Context) -> Outcome:
    """Train on all rows that `from` names; without a single row the role keeps the adapter that it has."""
    stage = run.stage
    assert isinstance(stage, Train)
    if isinstance(stage, PolicyTrain) and stage.online is not None:
        return await train_online(run, context)
    rows = [path for path in references.paths(stage.inputs, run, context.directory) if len(open_source(path))]
    stored = _stored(run, context)
    if not isinstance(stage, PolicyTrain):
        rows += stored
    if not rows:
        named = ", ".join(map(str, stage.inputs))
        return Outcome(about={"note": f"no rows to train on in {named}: the adapter stays as it is"})
    output = context.directory.artifact(run.label, "adapter", stage.role)
    remove(output)  # of a training whose end was never journalled
    job = _job(stage, run, context, rows, output, stored)
    await context.serving.make_room()
    trained = await _run(job, _work(run, context))
    version, check = await _served(run, context, output)
    return Outcome(
        {stage.role: _output(context, version, stage.role)},
        tokens={"trained": trained.total_tokens},
        about={
            "note": _note(trained),
            "training": _told(trained),
            "adapter_check": check,
        },
    )


async def train_online(run: StageRun, context: Context) -> Outcome:
    """Train on rounds that are played meanwhile; see `agentloop.loop.stages.online`."""
    stage = run.stage
    assert isinstance(stage, PolicyTrain)
    rounds = Rounds.of(run, context)
    output = context.directory.artifact(run.label, "adapter", stage.role)
    remove(output)
    job = _job(stage, run, context, [rounds.exchange.folder], output, [])
    online: dict[str, Any] = {
        "rounds": rounds.online.rounds,
        "rates": rounds.rates(),
        "wait": rounds.online.wait,
        "temperature": rounds.temperature,
        "policy": rounds.options(0),
        "compares": any(rounds.options(number)["kl"] for number in range(rounds.online.rounds)),
    }
    job = replace(job, method="online", content=rounds.identity, options=online)
    training = asyncio.ensure_future(_run(job, _work(run, context)))
    try:
        trained, played = await together(training, asyncio.ensure_future(rounds.play_all()))
    except RunFailed:
        if (empty := rounds.empty()) is None:
            raise
        rounds.clear()
        note = f"no rows to train on in {len(empty)} rounds: the adapter stays as it is"
        tokens, failures = _total(empty, "tokens"), _total(empty, "failures")
        return Outcome(tokens=tokens, failures=failures, about={"note": note, "rounds": [dict(one.facts) for one in empty]})
    version, check = await _served(run, context, output)
    rounds.clear()
    facts = [dict(one.facts) for one in played]
    return Outcome(
        {stage.role: _output(context, version, stage.role)},
        tokens=_total(played, "tokens") | {"trained": trained.total_tokens},
        failures=_total(played, "failures"),
        about={"note": f"{_note(trained)}; {_course(facts)}", "training": _told(trained), "adapter_check": check, "rounds": facts},
    )


def _total(rounds: Sequence[Round], name: str) -> dict[str, int]:
    """The sum over rounds of one of their counts by kind, "tokens" or "failures"."""
    return dict(sum((Counter(one.facts[name]) for one in rounds), Counter[str]()))


def _course(rounds: list[dict[str, Any]]) -> str:
    """How the rounds went, as a person reads it."""
    success = [one["success"] for one in rounds if one["success"] is not None]
    went = f", success {100 * success[0]:.1f} % to {100 * success[-1]:.1f} %" if success else ", in which every episode broke"
    return f"{len(rounds)} rounds{went}"


def _work(run: StageRun, context: Context) -> Path:
    """Where the training process keeps its log and its checkpoints."""
    return context.directory.logs / "training" / run.key.replace("/", "-")


async def _served(run: StageRun, context: Context, output: Path) -> tuple[AdapterVersion, dict[str, Any]]:
    """The version that was made, and what the check of its serving found."""
    assert isinstance(run.stage, Train)
    version = adapter_version(output, run.stage.role, run.iteration)
    _, check = await context.serving.serve(version)
    return version, check


def _told(trained: Trained) -> dict[str, Any]:
    """A training as the journal has it."""
    return {key: value for key, value in asdict(trained).items() if key != "adapter_path"}


def _stored(run: StageRun, context: Context) -> list[Path]:
    """Snapshots of the stores that the stage reads, where they hold anything."""
    names = stores.in_stores(run.stage.inputs, context.recipe)
    found = [stores.snapshot(name, run, context.recipe, context.directory) for name in names]
    return [path for path in found if path is not None]


def _note(trained: Trained) -> str:
    """What a training did, as a person reads it."""
    note = f"{trained.rows} rows, {trained.steps} updates, loss {trained.loss_first:.3f} to {trained.loss_last:.3f}"
    if (entropy := trained.facts.get("entropy")) is not None:
        note += f", entropy {entropy['first']:.3f} to {entropy['last']:.3f}"
    if replayed := trained.facts.get("replayed"):
        note += f"; {replayed} of the rows replayed"
    if resumed := trained.facts.get("resumed_at"):
        note += f"; went on from update {resumed}"
    left_out = ", ".join(f"{count} {reason}" for reason, count in trained.facts.get("left_out", {}).items() if count)
    return f"{note}; left out: {left_out}" if left_out else note


def _job(stage: Train, run: StageRun, context: Context, rows: list[Path], output: Path, stored: list[Path]) -> TrainingJob:
    at = run.schedule_at
    start = context.lineage.start_of(stage.role, stage.start)
    return TrainingJob(
        model=str(context.model.path),
        model_name=context.model.name,
        rows=tuple(str(path) for path in rows),
        output=str(output),
        method=_method(stage),
        start=None if start is None else str(start.path),
        role=stage.role,
        rank=stage.rank,
        alpha=stage.alpha,
        dropout=stage.dropout,
        epochs=stage.epochs.at(at),
        updates=stage.updates.at(at) if stage.updates is not None else None,
        learning_rate=stage.learning_rate.at(at),
        batch_size=stage.batch_size.at(at),
        max_length=stage.max_length,
        too_long="skip",
        max_rows=stage.max_rows.at(at) if stage.max_rows is not None else None,
        packing=stage.packing,
        warmup=stage.warmup,
        scheduler=stage.decay,
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        seed=context.recipe.seed + run.iteration,
        processes=stage.processes,
        distribution=stage.distribution,
        quantise=stage.quantise,
        checkpoint_every=stage.checkpoint_every,
        content=_content(run, context),
        options=policy_options(stage, run, context, stored) if isinstance(stage, PolicyTrain) else _options(stage, at),
    )


def _content(run: StageRun, context: Context) -> str:
    """Hash of everything that the stage reads."""
    named = references.hashes(run.stage.inputs, run, context.directory)
    return content_hash(named + stores.hashes(run, context.recipe, context.directory))


def _method(stage: Train) -> str:
    """The trainer's name: KTO reads other rows than DPO does, and is a trainer of its own."""
    return "kto" if isinstance(stage, PreferenceTrain) and stage.loss == "kto" else str(stage.model_dump()["method"])


def _options(stage: Train, at: int) -> dict[str, Any]:
    """What only this method knows."""
    if isinstance(stage, SupervisedTrain):
        return {"aggregate": stage.aggregate}
    if not isinstance(stage, PreferenceTrain):
        return {}
    if stage.loss == "kto":
        return {"beta": stage.beta.at(at), "desirable": stage.desirable.at(at)}
    return {"loss": stage.loss, **{name: getattr(stage, name).at(at) for name in ("beta", "margin", "imitation")}}


async def _run(job: TrainingJob, work: Path) -> Trained:
    """The training in a thread; cancelling this (Ctrl-C) kills the training's processes before it goes on."""
    cancel = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(launch, job, work_dir=work, cancel=cancel))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        cancel.set()
        await asyncio.gather(task, return_exceptions=True)  # the training's own word that it was stopped is of no interest
        raise


def _output(context: Context, version: AdapterVersion, role: str) -> Output:
    about = {"name": version.name, "role": role}
    return Output("adapter", context.directory.relative(version.path), version.content_hash, about=about)
