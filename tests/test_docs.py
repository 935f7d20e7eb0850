"""README, CONTRIBUTING and docs/ say what is there: links lead somewhere, code imports what exists, commands have their options."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from agentloop.cli.main import cli
from agentloop.recipe import load

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")

every_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page that are in one of the languages."""
    found = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language in languages]


def anchors(page: Path) -> set[str]:
    """What a link may name on a page: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@every_page
def test_no_merge_is_left_half_done(page: Path) -> None:
    assert not re.search(r"^(<{7}|={7}|>{7})( |$)", page.read_text(encoding="utf-8"), re.MULTILINE)


@every_page
def test_files_that_are_named_are_there(page: Path) -> None:
    named = re.findall(r"`((?:agentloop|tests|recipes|environments|benchmarks|docs)/[\w/.\-]+)`", page.read_text(encoding="utf-8"))
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


@every_page
def test_code_imports_what_exists(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(compile(block, str(page), "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("agentloop"):
                module = importlib.import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == [], node.module


@every_page
def test_commands_have_their_options(page: Path) -> None:
    for words in commands(page):
        command: click.Command = cli
        context = click.Context(cli)
        while isinstance(command, click.Group) and words:
            found = command.get_command(context, words[0])
            assert found is not None, words
            command, words = found, words[1:]
        known = {option for parameter in command.params for option in parameter.opts}
        assert [word for word in words if word.startswith("--") and word not in known] == [], words


def commands(page: Path) -> Iterator[list[str]]:
    """The words after `agentloop` of every command in a shell block, comments left out."""
    for block in blocks(page, "", "sh", "bash", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"(\.venv/bin/)?agentloop ", line):
                yield shlex.split(line, comments=True)[1:]


def test_the_readme_shows_the_recipe_that_make_demo_runs_and_an_environment_that_the_tests_play() -> None:
    (recipe,) = blocks(ROOT / "README.md", "yaml")
    assert recipe == (ROOT / "recipes/quickstart.yaml").read_text(encoding="utf-8")
    (environment,) = blocks(ROOT / "README.md", "python")
    assert environment in blocks(ROOT / "docs/environments.md", "python")


@every_page
def test_recipes_are_in_the_language(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "yaml"):
        if isinstance(yaml.safe_load(block), dict) and "name" in yaml.safe_load(block):
            (tmp_path / "r.yaml").write_text(block, encoding="utf-8")
            assert load(tmp_path / "r.yaml", environments={"calculator", "textcraft"}).stages
