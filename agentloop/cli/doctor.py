"""`agentloop doctor`: what this machine can run, and for each thing that is missing the command that installs it."""

from __future__ import annotations

from collections.abc import Iterable

import click

from agentloop.cli.machine import Finding

COLOURS = {"ok": "green", "note": "cyan", "missing": "yellow", "broken": "red"}


@click.command()
def command() -> int:
    """Say what this machine can run, and what is missing.

    Exit code 0 if agentloop can sample and train here, 1 if it cannot.
    """
    click.echo("importing torch and vLLM, which may take a minute …", err=True)
    findings = examine()
    for finding in findings:
        show(finding)
    click.echo(f"\n{verdict(findings)}")
    return 1 if any(finding.fatal for finding in findings) else 0


def examine() -> list[Finding]:
    """All findings, in the order in which they are shown. Takes as long as importing torch and vLLM does."""
    from agentloop.cli import machine

    torch_process, vllm_process = machine.start_asking(machine.ASK_TORCH), machine.start_asking(machine.ASK_VLLM)
    return [
        *machine.hardware(),
        *machine.packages(),
        *machine.training(machine.answer(torch_process)),
        *machine.vllm(machine.answer(vllm_process)),
        *machine.cache(),
        *machine.environments(),
        *machine.programs(),
    ]


def show(finding: Finding) -> None:
    """Print one finding, and below it the command that puts it right."""
    mark = click.style(f"{finding.status:8}", fg=COLOURS[finding.status])
    click.echo(f"{mark} {finding.subject:16} {finding.text}")
    if finding.fix:
        click.echo(f"{'':25} → {finding.fix}")


def verdict(findings: Iterable[Finding]) -> str:
    """The last line: what can be run here, or what has to be put right first."""
    known = {finding.subject: finding for finding in findings}
    fatal = [finding.subject for finding in known.values() if finding.fatal]
    if fatal:
        return f"agentloop cannot run here yet; put right: {', '.join(fatal)}"
    engine = "vLLM" if known["vllm"].status == "ok" else "transformers"
    device = "a CUDA device" if known.get("CUDA", Finding("", "note", "")).status == "ok" else "the processor"
    ready = [subject.removeprefix("env ") for subject, finding in known.items() if subject.startswith("env ") and finding.status == "ok"]
    return f"agentloop samples with {engine} and trains on {device}; environments ready: {', '.join(ready) or 'none'}"
