"""Imports run one way: each package of agentloop may import those of its row, and the light ones bring in nothing heavy."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "agentloop"

ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "recipe": set(),
    "model": set(),
    "trace": set(),
    "environment": {"trace"},
    "engine": {"model", "trace"},
    "critic": {"engine", "trace"},
    "sampling": {"critic", "engine", "environment", "trace"},
    "dataset": {"trace"},
    "training": {"dataset", "trace"},
    "evaluation": {"sampling", "critic", "engine", "environment", "trace"},
    "run": {"recipe", "trace"},
    "report": {"run", "dataset", "trace"},
}
"""The table of `docs/architecture.md`, lowest first; every package may import `errors`."""

ALLOWED["loop"] = set(ALLOWED)
ALLOWED["cli"] = set(ALLOWED)

LIGHT = [
    "agentloop",
    "agentloop.recipe",
    "agentloop.model",
    "agentloop.environment.registry",
    "agentloop.run.journal",
    "agentloop.cli.main",
    "agentloop.cli.run",
]
PUBLIC = [
    "agentloop.environment.base",
    "agentloop.environment.failure",
    "agentloop.environment.json_schema",
    "agentloop.environment.mcp_tools",
    "agentloop.environment.sandbox",
    "agentloop.environment.tools",
    "agentloop.errors",
    "agentloop.evaluation.math",
]
HEAVY = ["torch", "transformers", "vllm", "trl", "peft", "datasets"]


def imported(file: Path) -> Iterator[tuple[int, str]]:
    """Line and package (second part of the name) of every import of agentloop in a file, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"agentloop.{alias.name}" for alias in node.names] if node.module == "agentloop" else [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "agentloop" and len(parts) > 1:
                yield node.lineno, parts[1]


def packages() -> set[str]:
    """Names of what lies in `agentloop/`: packages, and modules beside them."""
    entries = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {path.stem for path in PACKAGE.glob("*.py")}
    return entries - {"__init__"}


def test_every_package_has_its_row() -> None:
    assert packages() <= set(ALLOWED)


def test_the_table_has_no_circle() -> None:
    def reaches(start: str) -> set[str]:
        seen: set[str] = set()
        rest = list(ALLOWED[start])
        while rest:
            name = rest.pop()
            if name not in seen:
                seen.add(name)
                rest += ALLOWED[name]
        return seen

    assert [name for name in ALLOWED if name in reaches(name)] == []


@pytest.mark.parametrize("package", sorted(packages() - {"errors"}))
def test_a_package_imports_only_what_its_row_allows(package: str) -> None:
    allowed = ALLOWED[package] | {package, "errors"}
    wrong = [
        f"{file.relative_to(PACKAGE.parent)}:{line}: {package} imports {name}"
        for file in sorted((PACKAGE / package).rglob("*.py"))
        for line, name in imported(file)
        if name in packages() and name not in allowed
    ]
    assert wrong == []


def test_the_table_is_the_one_in_the_documentation() -> None:
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", text, flags=re.MULTILINE)
    assert {name for name, _ in rows} == set(ALLOWED) - {"errors"}
    for name, allowed in rows:
        if not re.search(r"\ball\b|what it imports", allowed):
            assert set(re.findall(r"`(\w+)`", allowed)) == ALLOWED[name], name


def test_shipped_environments_use_the_public_protocol_only() -> None:
    wrong = [
        f"{file.relative_to(PACKAGE.parent)}:{node.lineno}: {node.module}"
        for file in sorted((PACKAGE.parent / "environments").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.level == 0
        if (node.module or "").startswith("agentloop.") and node.module not in PUBLIC
    ]
    assert wrong == []


@pytest.mark.parametrize("module", LIGHT)
def test_importing_it_brings_in_nothing_heavy(module: str) -> None:
    program = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == []
