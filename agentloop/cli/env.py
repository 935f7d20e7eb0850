"""`agentloop env list | new | check`: what environments there are, a working start for a new one, and the protocol run against one."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from agentloop.environment.registry import EnvironmentSpec


@click.group("env")
def env() -> None:
    """List, scaffold and check environments."""


@env.command("list")
def list_environments() -> None:
    """Show the environments that are shipped or installed: tasks in train / dev / test, what they are, what they need."""
    from agentloop.environment.registry import find, names

    found = names()
    if not found:
        click.echo("no environments are installed; a .py file of your own works too: agentloop env new NAME")
        return
    width = max(map(len, found)) + 2
    click.echo(f"{'id':{width}}{'train / dev / test':22}description")
    for name in found:
        sizes, description = _describe(find(name))
        click.echo(f"{name:{width}}{sizes:22}{description}")


@env.command("new")
@click.argument("name")
@click.option("--tool", is_flag=True, help="A tool environment: typed methods that the model calls.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), default=Path(), help="Where to write it.")
def new(name: str, tool: bool, folder: Path) -> None:
    """Write a working environment NAME.py and its test, to be changed into your own."""
    from agentloop.environment.scaffold import scaffold

    environment, test = scaffold(name, folder, tool=tool)
    click.echo(f"wrote {environment} and {test}")
    path = str(environment) if environment.is_absolute() else f"./{environment}"
    click.echo(f"check it:  agentloop env check {path}")
    click.echo(f"use it:    environment: {{id: {path}}}")


@env.command("check")
@click.argument("id")
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="An option of the environment; may be repeated.")
@click.option("--episodes", type=click.IntRange(min=2), default=50, show_default=True, help="Episodes to play when looking for leaks.")
def check_environment(id: str, settings: tuple[str, ...], episodes: int) -> None:
    """Run the protocol against environment ID, a name or the path of a .py file. Exit code 1 if something does not hold."""
    from agentloop.environment.registry import find

    spec = find(id)
    ok = asyncio.run(_check(spec, _options(settings), episodes))
    sys.exit(0 if ok else 1)


async def _check(spec: EnvironmentSpec, options: dict[str, Any], episodes: int) -> bool:
    """Print each finding as it comes; whether nothing failed."""
    from agentloop.environment.check import check

    failed = 0
    async for finding in check(spec, options, episodes=episodes):
        word = {True: "ok", False: "FAILED", None: "-"}[finding.passed]
        click.echo(f"{word:8}{finding.name:12}{finding.detail}")
        if finding.mend:
            click.echo(f"{'':20}to mend it: {finding.mend}")
        failed += finding.passed is False
    click.echo(f"{spec.id}: {failed} of its claims do not hold" if failed else f"{spec.id} keeps the protocol")
    return not failed


def _describe(spec: EnvironmentSpec) -> tuple[str, str]:
    """Sizes of the splits and the description; where the environment cannot be made, the reason instead of sizes."""
    from agentloop.environment.base import SPLITS

    try:
        environment = spec.make()
        # What would be downloaded first is not asked for: a listing is quick, and works without a network.
        sizes = "on the hub" if environment.remote else " / ".join(str(len(environment.tasks(split))) for split in SPLITS)
        description = spec.description() + (f" (needs {environment.needs})" if environment.needs else "")
        environment.close()
        return sizes, description
    except Exception as error:
        return "not usable here", f"{spec.description()} [{error}]"


def _options(settings: tuple[str, ...]) -> dict[str, Any]:
    """`name=value` pairs with values read as YAML. Raises `Mistake`."""
    import yaml

    from agentloop.errors import Mistake

    options = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign or not name:
            raise Mistake("an option is given as --set OPTION=VALUE", found=setting)
        try:
            options[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            options[name.strip()] = value
    return options
