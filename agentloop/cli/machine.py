"""What `agentloop doctor` looks at: each question about this machine is a function that answers with findings.

Whatever may hang or crash (importing torch or vLLM) is asked in a process of its own, with a time limit.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

Status = Literal["ok", "note", "missing", "broken"]
GIB = 2**30

IMPORT_TIMEOUT = 180.0
"""Seconds that importing a package may take: vLLM takes ten on a quiet machine, and a cold disk makes that a minute."""

NEED_MEMORY_GIB = 6
NEED_DISK_GIB = 5
"""What the quickstart uses at its peak: a server and a trainer of a 135M model in float32; the model, adapters and trees."""

NEEDED = ("torch", "transformers", "peft", "trl")
"""Packages without which nothing can be trained or sampled; vLLM is not among them, because the transformers engine stands in."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        subject: What was looked at.
        status: "ok"; "note" (nothing is wrong, but know this); "missing" (not there); "broken" (there, but does not work).
        text: What was found.
        fix: The command that puts it right, or "".
        core: Whether nothing runs without it.
    """

    subject: str
    status: Status
    text: str
    fix: str = ""
    core: bool = False

    @property
    def fatal(self) -> bool:
        """Whether this keeps the core from working."""
        return self.core and self.status in ("missing", "broken")


def in_checkout() -> bool:
    """Whether agentloop runs from its repository, where `make setup` installs."""
    return (Path(__file__).resolve().parents[2] / "Makefile").is_file()


def install_command(extra: str) -> str:
    """What to type to install an extra."""
    if in_checkout() and extra in ("cpu", "gpu"):
        return f"AGENTLOOP_SETUP={extra} make setup"
    return f"pip install 'agentloop[{extra}]'"


def wanted_extra() -> str:
    """The extra for this machine: "gpu" where the NVIDIA driver is, else "cpu"."""
    return "gpu" if sys.platform == "linux" and shutil.which("nvidia-smi") else "cpu"


def hardware() -> Iterator[Finding]:
    """Python, processor, memory and disk."""
    import psutil

    python = f"{platform.python_version()} on {platform.system()} {platform.machine()} ({sys.prefix})"
    yield Finding("python", "ok", python, core=True)
    threads, cores = psutil.cpu_count() or 1, psutil.cpu_count(logical=False) or 1
    yield Finding("processor", "ok" if threads > 1 else "note", f"{cores} cores, {threads} threads")
    memory = psutil.virtual_memory()
    enough = memory.available >= NEED_MEMORY_GIB * GIB
    text = f"{memory.total / GIB:.0f} GiB, {memory.available / GIB:.0f} GiB of it free"
    yield Finding("memory", "ok" if enough else "note", text if enough else f"{text}; the quickstart wants {NEED_MEMORY_GIB} GiB")
    free = shutil.disk_usage(Path.cwd()).free / GIB
    enough = free >= NEED_DISK_GIB
    yield Finding("disk", "ok" if enough else "note", f"{free:.0f} GiB free here" + ("" if enough else f"; want {NEED_DISK_GIB} GiB"))


def cache() -> Iterator[Finding]:
    """The cache folder, and whether the alias of the quickstart's model is already in it."""
    from agentloop.model.cache import cache_dir
    from agentloop.model.resolve import ALIASES

    folder = cache_dir()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.access(there, os.W_OK):
        yield Finding("cache", "ok", str(folder), core=True)
    else:
        yield Finding("cache", "broken", f"{there} cannot be written to", "export AGENTLOOP_CACHE=/a/folder/of/yours", core=True)
    name = "smollm2-135m"
    for source in ALIASES[name]:
        if source.local and (found := source.find(name)) is not None:
            yield Finding("model", "ok", f"{name} from {found.source}: {found.path}")
            return
    yield Finding("model", "note", f"{name} is downloaded when it is first used", f"{sys.executable} -m agentloop.model {name}")


def unsatisfied(requirements: Sequence[str], extra: str = "") -> list[str]:
    """Those of a distribution's requirements for `extra` ("" for its own) that the installed packages do not satisfy."""
    bad = []
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            bad.append(f"{requirement} (not installed)")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            bad.append(f"{requirement} (installed: {version})")
    return bad


def packages() -> Iterator[Finding]:
    """The packages that agentloop itself needs, by its own metadata."""
    bad = unsatisfied(importlib.metadata.requires("agentloop") or [])
    if bad:
        yield Finding("packages", "broken", ", ".join(bad), install_command(wanted_extra()), core=True)
    else:
        yield Finding("packages", "ok", "all that agentloop itself needs", core=True)


ASK_TORCH = """
import importlib, importlib.util, json
answer = {}
for name in ["torch", "torchvision", "transformers", "peft", "trl"]:
    if importlib.util.find_spec(name) is None:
        continue
    try:
        answer[name] = {"version": importlib.import_module(name).__version__}
        if name == "transformers":
            from transformers import LlamaForCausalLM
        if name == "trl":
            from trl import SFTTrainer
    except BaseException as error:
        answer[name] = {"error": f"{type(error).__name__}: {error}"}
if "version" in answer.get("torch", {}):
    import torch
    answer["torch"]["built_for"] = torch.version.cuda and f"CUDA {torch.version.cuda}" or "CPU"
    devices = [torch.cuda.get_device_properties(n) for n in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    answer["torch"]["devices"] = [[device.name, device.total_memory] for device in devices]
print("ANSWER" + json.dumps(answer))
"""

ASK_VLLM = """
import importlib.util, json
answer = {}
if importlib.util.find_spec("vllm") is not None:
    try:
        import vllm
        from vllm.platforms import current_platform
        answer = {"version": vllm.__version__, "platform": current_platform.device_type}
    except BaseException as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
print("ANSWER" + json.dumps(answer))
"""


def start_asking(program: str) -> subprocess.Popen[str]:
    """Start a process that prints what it finds, for `answer` to read."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def answer(process: subprocess.Popen[str], timeout: float = IMPORT_TIMEOUT) -> dict[str, Any]:
    """What the process found; {"error": …} if it crashed or took longer than `timeout` seconds."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return {"error": f"importing it took longer than {timeout:g} s"}
    for line in out.splitlines():
        if line.startswith("ANSWER"):
            found: dict[str, Any] = json.loads(line.removeprefix("ANSWER"))
            return found
    return {"error": f"the import ended with exit code {process.returncode}: {(err.strip().splitlines() or ['no message'])[-1]}"}


def training(found: dict[str, Any]) -> Iterator[Finding]:
    """torch and what trains on it, from the answer to `ASK_TORCH`."""
    install = install_command(wanted_extra())
    if "error" in found:
        yield Finding("torch", "broken", found["error"], install, core=True)
        return
    for name in NEEDED:
        if name not in found:
            yield Finding(name, "missing", "not installed", install, core=True)
        elif "error" in found[name]:
            yield Finding(name, "broken", _line(found[name]["error"]), install, core=True)
        else:
            yield Finding(name, "ok", found[name]["version"], core=True)
    if "error" in found.get("torchvision", {}):
        uninstall = f"{sys.executable} -m pip uninstall -y torchvision torchaudio torchcodec"
        yield Finding(
            "torchvision", "broken", f"{_line(found['torchvision']['error'])}; it breaks transformers, text needs none of it", uninstall
        )
    yield from _cuda(found.get("torch", {}))


def _cuda(torch: dict[str, Any]) -> Iterator[Finding]:
    if "built_for" not in torch:
        return
    if torch["devices"]:
        text = ", ".join(f"{name} ({memory / GIB:.0f} GiB)" for name, memory in torch["devices"])
        yield Finding("CUDA", "ok", text)
    elif wanted_extra() == "gpu":
        yield Finding("CUDA", "missing", f"there is an NVIDIA driver, but torch is built for {torch['built_for']}", install_command("gpu"))
    else:
        yield Finding("CUDA", "note", f"no device; torch is built for {torch['built_for']}, everything runs on the processor")


def vllm(found: dict[str, Any]) -> Iterator[Finding]:
    """The engine, from the answer to `ASK_VLLM`."""
    install = install_command(wanted_extra())
    if "version" in found:
        yield Finding("vllm", "ok", f"{found['version']} for {found['platform']}")
    elif "error" in found:
        yield Finding("vllm", "broken", f"{_line(found['error'])}; the transformers engine is used", install)
    elif sys.platform != "linux":
        yield Finding("vllm", "note", f"not made for {platform.system()}; the transformers engine is used")
    else:
        yield Finding("vllm", "missing", "not installed; the transformers engine is used, several times slower", install)


def environments() -> Iterator[Finding]:
    """Each environment that is shipped or installed, and what it still needs."""
    from agentloop.environment.registry import names

    requirements = importlib.metadata.requires("agentloop") or []
    for name in names():
        own = [text for text in requirements if f'extra == "{name}"' in text.replace("'", '"')]
        bad = unsatisfied(own, name)
        if bad:
            yield Finding(f"env {name}", "missing", f"needs {', '.join(bad)}", install_command(name))
        else:
            yield Finding(f"env {name}", "ok", "ready")


def programs() -> Iterator[Finding]:
    """Programs that some environments need and pip cannot install."""
    browser = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if browser and driver:
        yield Finding("chromium", "ok", f"{browser}, {driver}")
    else:
        lacking = " and ".join(name for name, path in (("chromium", browser), ("chromedriver", driver)) if not path)
        yield Finding("chromium", "note", f"no {lacking}; only web environments need it", "sudo apt-get install chromium chromium-driver")
    java = shutil.which("java")
    if java:
        yield Finding("java", "ok", java)
    else:
        yield Finding("java", "note", "not found; only ScienceWorld needs it", "sudo apt-get install openjdk-17-jre-headless")


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
