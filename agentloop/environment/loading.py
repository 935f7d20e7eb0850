"""Import of environment classes from files and entry points, with every failure translated to the user's file and line."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path

from agentloop.environment.base import Environment
from agentloop.errors import Mistake, nearest

_SHIPPED_PACKAGE = "agentloop_environments"
_REQUIRED = ("tasks", "reset", "step")


def load_file(
    path: Path,
    target: str,
    *,
    package: str | None,
    install: Callable[[str | None], str],
) -> type[Environment]:
    """The environment class in a file.

    Args:
        path: The file.
        target: Name of the class, or "" for the only one.
        package: Name of the shipped environment whose folder the file is in, so that it can import its neighbours
            relatively; None for a user's file.
        install: What to type when a module is missing.

    Raises:
        Mistake: The file does not import, or does not define what is wanted.
    """
    module = _import_file(path, package, install)
    return _checked(_choose(module, path, target), path)


def load_entry_point(id: str, target: str) -> type[Environment]:
    """The class that an installed package's entry point names. Raises `Mistake`."""
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise Mistake(f"environment {id!r} is installed but {module_name} does not import: {type(error).__name__}: {error}") from error
    found = getattr(module, name, None)
    if not (isinstance(found, type) and issubclass(found, Environment)):
        raise Mistake(
            f"environment {id!r}: its entry point is no environment",
            found=target,
            expected="package.module:Class",
        )
    return _checked(found, Path(module.__file__ or module_name))


def _import_file(path: Path, package: str | None, install: Callable[[str | None], str]) -> types.ModuleType:
    if package is None:
        name = f"agentloop_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))  # at the end: its neighbours are found, nothing else is hidden by them
    else:
        name = f"{_SHIPPED_PACKAGE}.{package}.{path.stem}"
        _make_package(_SHIPPED_PACKAGE, path.parent.parent)
        _make_package(f"{_SHIPPED_PACKAGE}.{package}", path.parent)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and type hints look their module up there
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        sys.modules.pop(name, None)
        if isinstance(error, (KeyboardInterrupt, Mistake)):
            raise
        raise _import_mistake(path, error, install) from error
    return module


def _make_package(name: str, folder: Path) -> None:
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module


def _import_mistake(path: Path, error: BaseException, install: Callable[[str | None], str]) -> Mistake:
    if isinstance(error, SyntaxError) and error.filename is not None:
        return Mistake(
            f"the environment's file does not parse: {error.msg}",
            file=_short(error.filename),
            line=error.lineno,
        )
    inside = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(path.parent))]
    file, line = (inside[-1].filename, inside[-1].lineno) if inside else (str(path), None)
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        return Mistake(
            f"the environment needs the module {error.name!r}; install it with: {install(top)}",
            file=_short(file),
            line=line,
        )
    return Mistake(
        f"the environment's file does not import: {type(error).__name__}: {error}",
        file=_short(file),
        line=line,
    )


def _choose(module: types.ModuleType, path: Path, target: str) -> type[Environment]:
    """The class `target`, or the only environment that the module itself defines and derives no other from."""
    defined = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Environment) and value.__module__ == module.__name__
    }
    if target:
        if target not in defined:
            found = f"{target!r} in {path.name}"
            expected = f"one of {', '.join(defined)}" if defined else "a class that inherits from agentloop.Environment"
            raise Mistake(
                f"there is no environment {found}",
                file=_short(path),
                expected=expected,
                nearest=nearest(target, defined),
            )
        return defined[target]
    bases = {base for value in defined.values() for base in value.__mro__[1:]}
    leaves = [name for name, value in defined.items() if not name.startswith("_") and value not in bases]
    if len(leaves) == 1:
        return defined[leaves[0]]
    if leaves:
        hint = f"one; say which, for example {path.name}:{leaves[0]}"
        raise Mistake(
            f"the file defines {len(leaves)} environments ({', '.join(leaves)})",
            file=_short(path),
            expected=hint,
        )
    classes = [name for name, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__]
    raise Mistake(
        f"the file defines no environment, only {', '.join(classes)}" if classes else "the file defines no class",
        file=_short(path),
        expected="a class that inherits from agentloop.Environment",
    )


def _checked(environment: type[Environment], path: Path) -> type[Environment]:
    for name in _REQUIRED:
        if getattr(environment, name) is getattr(Environment, name):
            own = [method for method in vars(environment) if callable(getattr(environment, method)) and not method.startswith("_")]
            raise Mistake(
                f"class {environment.__name__} does not define {name}()",
                file=_short(path),
                expected="the methods tasks, reset and step",
                nearest=nearest(name, [method for method in own if method not in dir(Environment)]),
            )
    return environment


def _short(path: Path | str) -> str:
    """The path as the user would type it: relative to the working directory where it lies inside."""
    path = Path(path)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
