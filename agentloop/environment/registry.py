"""Where environments come from: installed packages by entry point, those shipped with agentloop by folder, a user's own by path.

`find` and `names` import no environment; `EnvironmentSpec.load` does, and so does `option_mistakes`, which is the last thing that a recipe
is checked by. Whatever is wrong with an environment before it plays is a `Mistake` that names the user's own file and line.

- Shipped: `environments/NAME/environment.py`, one `Environment` class, modules beside it imported relatively (`from .recipes import ...`).
- Installed: an entry point of group `agentloop.environments`, whose value is `package.module:Class`.
- A file: `./guess.py` with exactly one `Environment` class, or `./games.py:Guess`. Modules beside it can be imported by name.
"""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from agentloop.environment import loading
from agentloop.environment import options as options_module
from agentloop.environment.base import Environment
from agentloop.environment.options import check_options, make
from agentloop.errors import Mistake, nearest

ENTRY_POINT_GROUP = "agentloop.environments"


@dataclass(frozen=True, slots=True)
class EnvironmentSpec:
    """An environment that was found but not necessarily imported.

    Attributes:
        id: What the recipe says: a name, or a path.
        source: Where it comes from.
        path: Its file; None for an installed package.
        target: The class: "module:Class" for an entry point, the name of a class in a file, or "" for the only one there.
    """

    id: str
    source: Literal["shipped", "installed", "file"]
    path: Path | None
    target: str = ""

    @property
    def folder(self) -> str | None:
        """Folder of the environment's own code, to tell its errors from those of libraries."""
        return str(self.path.parent) if self.path is not None else None

    def load(self) -> type[Environment]:
        """Import it. Raises `Mistake` with the user's file and line."""
        return _load(self)

    def check_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """`options` checked against `__init__` and converted to its types. Raises `Mistake`."""
        return check_options(self.id, self.load(), options)

    def make(self, **options: Any) -> Environment:
        """An instance. Raises `Mistake` for options that it does not take or refuses; what else `__init__` raises goes through."""
        checked = self.check_options(options)
        return make(self.id, self.load(), checked, install=self.install_command, own_file=self.source == "file")

    def description(self) -> str:
        """First line of the class docstring, read without importing where there is a file; "" if there is none."""
        if self.path is None:
            return (self.load().__doc__ or "").strip().split("\n")[0]
        return _docstring(self.path, self.target)

    def install_command(self, module: str | None = None) -> str:
        """What to type when a package that it needs is missing."""
        return f"pip install 'agentloop[{self.id}]'" if self.source == "shipped" else f"pip install {module or 'the package'}"


def option_mistakes(id: str, options: Mapping[str, Any]) -> list[tuple[str, Mistake]]:
    """Each option that the environment of that name or path does not take, with the mistake. Imports the environment.

    Raises:
        Mistake: There is no such environment, or it cannot be imported; it names the user's file and line.
    """
    spec = find(id)
    return list(options_module.option_mistakes(id, spec.load(), options))


def names() -> tuple[str, ...]:
    """Names of all environments that are shipped or installed, sorted. Imports none of them."""
    return tuple(sorted({*_shipped(), *_installed()}))


def find(id: str, base: Path | None = None) -> EnvironmentSpec:
    """The environment of that name or path.

    Args:
        id: A name from `names`, or the path of a `.py` file, with `:Class` behind it where the file holds several.
        base: Folder that a relative path is looked up in first (a recipe's folder); then the working directory.

    Raises:
        Mistake: There is no such environment; it names the nearest.
    """
    path_text, _, target = id.partition(".py:")
    if target:
        path_text += ".py"
    if path_text.endswith(".py") or "/" in id:
        return EnvironmentSpec(id, "file", _file(path_text, base), target)
    shipped = _shipped()
    if id in shipped:
        return EnvironmentSpec(id, "shipped", shipped[id])
    installed = _installed()
    if id in installed:
        return EnvironmentSpec(id, "installed", None, installed[id])
    known = names()
    hint = f"one of {', '.join(known)}, or the path of a .py file"
    raise Mistake(f"unknown environment {id!r}", expected=hint, nearest=nearest(id, known))


def shipped_folder() -> Path:
    """The folder `environments/`: beside the package in a checkout, inside it where it was installed."""
    package = Path(__file__).resolve().parent.parent
    checkout = package.parent / "environments"
    return checkout if (package.parent / "pyproject.toml").exists() and checkout.is_dir() else package / "environments"


def _shipped() -> dict[str, Path]:
    return {path.parent.name: path for path in sorted(shipped_folder().glob("*/environment.py"))}


@cache
def _installed() -> dict[str, str]:
    return {point.name: point.value for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)}


def _file(text: str, base: Path | None) -> Path:
    given = Path(text).expanduser()
    candidates = [folder / given for folder in ([base] if base is not None else []) + [Path.cwd()]]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    beside = [path.name for path in candidates[0].parent.glob("*.py")] if candidates[0].parent.is_dir() else []
    raise Mistake(
        f"there is no environment file {str(candidates[0])!r}",
        nearest=nearest(given.name, beside),
    )


@cache
def _load(spec: EnvironmentSpec) -> type[Environment]:
    if spec.path is None:
        return loading.load_entry_point(spec.id, spec.target)
    package = spec.path.parent.name if spec.source == "shipped" else None
    return loading.load_file(spec.path, spec.target, package=package, install=spec.install_command)


def _docstring(path: Path, target: str) -> str:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in reversed(tree.body):
        if isinstance(node, ast.ClassDef) and (node.name == target if target else node.bases and not node.name.startswith("_")):
            text = ast.get_docstring(node)
            if text:
                return text.strip().split("\n")[0]
    return ""
