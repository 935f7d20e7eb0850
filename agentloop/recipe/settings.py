"""The parts of a recipe that are no stages: environments, roles, engine, prompt, lineage, stores and placement."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, Strict, ValidationInfo, field_validator, model_serializer, model_validator
from pydantic.functional_serializers import SerializerFunctionWrapHandler
from pydantic_core import PydanticCustomError

from agentloop.recipe import surroundings
from agentloop.recipe.part import SECRET, Amount, Count, Flag, NotEmpty, Number, Part, Positive, PositiveShare, Share, Whole, trouble
from agentloop.recipe.schedule import Scheduled

Start = Literal["base", "previous", "best"]
"""Which adapter a training continues: none, the one that the role plays with now (the last one trained or kept), or the best so far."""

ArtifactType = Literal["tasks", "trees", "rows", "adapter", "measurement", "store"]

EnvironmentId = Annotated[str, AfterValidator(lambda text, info: surroundings.environment(text, info.context))]
ModelName = Annotated[str, AfterValidator(lambda text, info: surroundings.model(text, info.context))]
HIGHEST_RANK = 512
"""Highest rank of an adapter that vLLM serves, whatever it is told."""

Rank = Annotated[int, Strict(), Field(ge=1, le=HIGHEST_RANK)]

LORA_ARGUMENTS = {"--max-loras": "max_loras", "--max-cpu-loras": "max_loras", "--max-lora-rank": "max_lora_rank"}
"""Words for vLLM's command line that would contradict a key without a word, and the key."""

FunctionName = Annotated[str, AfterValidator(lambda text, info: surroundings.function(text, info.context))]


class Environment(Part):
    """An environment and its options. Keys that are not listed here are options, given to the environment's `__init__`."""

    model_config = ConfigDict(extra="allow")

    id: EnvironmentId
    """Registered name, or path of a Python file that defines one."""
    tasks: Count | None = None
    """Tasks that a `sample` stage plays where it does not say; null is all of the split."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        """`environment: textcraft` is short for `environment: {id: textcraft}`."""
        return {"id": value} if isinstance(value, str) else value

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the environment."""
        return dict(self.model_extra or {})


class Role(Part):
    """Who acts under a name: an adapter on the base model, the bare base, a model behind a URL, or a scoring model."""

    adapter: Flag = True
    """Whether the role has an adapter of its own; false is the bare base model."""
    start: Start | None = None
    """Where the trainings of this role start that do not say so themselves; null is `previous`."""
    url: str | None = Field(None, pattern=r"^https?://")
    """Address of a server with the OpenAI protocol, for a role played by another model."""
    model: str | None = None
    """Name of the model at `url`; without `url`, the scoring model (an alias, a hub id or a path)."""
    scoring: Literal["classifier", "reward", "embedder"] | None = None
    """What kind of scoring model `model` is."""
    key: str | None = None
    """Name of the environment variable that holds the key for `url`. Never the key itself."""
    prompt: str | None = None
    """System prompt of the role, in place of the environment's."""

    @model_validator(mode="before")
    @classmethod
    def _one_kind(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        if value.get("adapter") is True and ("url" in value or "model" in value):
            raise trouble("a role is an adapter or another model, not both", path=("adapter",))
        if "url" in value or "model" in value:
            value = {"adapter": False, **value}
            if "start" in value:
                raise trouble("a role without an adapter is never trained, so it has no 'start'", path=("start",))
        for word in ("scoring", "key"):
            needs = "model" if word == "scoring" else "url"
            if value.get(word) is not None and value.get(needs) is None:
                raise trouble(f"{word!r} of a role needs {needs!r}", path=(word,))
        return value

    @field_validator("key")
    @classmethod
    def _name_of_a_key(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", value):
            raise PydanticCustomError(SECRET, "is no name")
        return value

    @field_validator("model")
    @classmethod
    def _known(cls, value: str | None, info: ValidationInfo) -> str | None:
        """A scoring model is loaded here, so its name is checked; what a server calls its model is its own affair."""
        return surroundings.model(value, info.context) if value is not None and info.data.get("url") is None else value

    @property
    def kind(self) -> Literal["adapter", "base", "url", "scoring"]:
        """What the role is."""
        if self.url is not None:
            return "url"
        if self.model is not None:
            return "scoring"
        return "adapter" if self.adapter else "base"


class Engine(Part):
    """How to get an engine and within which bounds it works. A key that is left out has the engine's own default."""

    kind: Literal["auto", "vllm", "transformers", "scripted"] = "auto"
    """`auto` is vLLM where it is installed, else transformers."""
    url: str | None = Field(None, pattern=r"^https?://")
    """Address of a running vLLM server; null starts one."""
    port: Count | None = None
    """Port of the server that is started; null takes a free one."""
    python: str | None = None
    """Interpreter of the virtual environment that holds vLLM; null is the running one."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of weights and activations; `auto` is float32 on a CPU and bfloat16 on an accelerator."""
    max_model_len: Count | None = None
    """Longest context in tokens, completion included; null is the model's limit."""
    max_lora_rank: Rank = 64
    """Highest adapter rank that is served."""
    max_loras: Count | None = None
    """Adapter slots of the server, of a running one too; null is what the roles need: two for each with an adapter, and a spare."""
    memory_gib: Positive | None = None
    """GiB for the key-value cache on a CPU."""
    gpu_memory_utilization: PositiveShare = 0.9
    """Share of an accelerator's memory that vLLM may take."""
    while_training: Literal["stop", "sleep"] = "stop"
    """What a server that was started here does while a training needs the only accelerator."""
    concurrency: Count = 64
    """Requests that the engine works on at once."""
    start_timeout: Positive = 600.0
    """Seconds until a server must answer after its start."""
    request_timeout: Positive = 600.0
    """Seconds until a request must be answered."""
    retries: Amount = 3
    """How often a request is sent again after a passing fault."""
    restarts: Amount = 3
    """How often a crashed server is started again in one run."""
    seed: Whole = 0
    """Seed of the engine itself."""
    script: FunctionName | None = None
    """The scripted engine's function, FILE.py:FUNCTION."""
    arguments: tuple[str, ...] = ()
    """Further command-line arguments of the vLLM server."""

    @model_validator(mode="before")
    @classmethod
    def _consistent(cls, value: object) -> object:
        if isinstance(value, dict):
            kind = value.get("kind", "auto")
            if kind == "scripted" and value.get("script") is None:
                raise trouble("engine kind 'scripted' needs 'script'", path=("kind",), expected="script: FILE.py:FUNCTION")
            if value.get("url") is not None and kind not in ("auto", "vllm"):
                raise trouble("'url' of the engine is the address of a vLLM server", path=("kind",), found=kind, expected="vllm")
            arguments = value.get("arguments")
            for index, word in enumerate(arguments if isinstance(arguments, list | tuple) else ()):
                key = LORA_ARGUMENTS.get(str(word).partition("=")[0].replace("_", "-"))
                if key is not None:
                    message = f"{str(word)!r} is for the engine's key {key!r} to say"
                    raise trouble(message, path=("arguments", index), expected=f"{key}: NUMBER")
        return value


class Prompt(Part):
    """What stands in the prompt beside the environment's own words."""

    examples: Amount | str = 0
    """Worked examples in the prompt: how many of those that the environment offers, or a YAML or JSON file with one's own."""
    system: str | None = None
    """System prompt in place of the environment's."""

    @field_validator("examples")
    @classmethod
    def _file(cls, value: int | str, info: ValidationInfo) -> int | str:
        return surroundings.existing(value, info.context) if isinstance(value, str) else value


class Archive(Part):
    """An archive of adapters that branches and returns (HGM, arXiv:2510.21614; DGM): each round picks a parent from all that were made."""

    select: Literal["clade", "own", "best", "random"] = "clade"
    """How a parent is drawn: by the pooled success of it and its descendants, by its own, the best, or uniformly."""
    widening: Share = 0.6
    """A new child is made when evaluations ** widening is at least the number of nodes; else a node is evaluated once more."""
    temperature: Scheduled[Positive] = Scheduled.constant(1.0)
    """Sharpness of the Beta posteriors that nodes are drawn from."""
    percentile: PositiveShare = 0.05
    """The node that wins in the end has the highest such percentile of its posterior."""
    size: Count | None = None
    """Most nodes that are kept; null keeps all."""


class Lineage(Part):
    """Which adapter the next round starts from, the last one accepted (a line) or one drawn from an archive, and which stay on disk."""

    archive: Archive | None = None
    """Settings of the archive; null is a line."""
    keep: Amount | Literal["all"] = 1
    """Adapters of each role that stay on disk after they ceased to be current or best, the last ones to do so."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: object) -> object:
        """`lineage: line` and `lineage: archive` are short forms."""
        if isinstance(value, str):
            if value not in ("line", "archive"):
                raise trouble(f"unknown lineage {value!r}", expected="line, archive or {archive: {...}}")
            return {"archive": {}} if value == "archive" else {}
        return value

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> object:
        return "line" if self == Lineage() else handler(self)


class Store(Part):
    """What lives across iterations: append-only, with a snapshot a stage. Stages write to it with `into` and read it with `from`."""

    holds: Literal["tasks", "trees", "rows"] = "rows"
    """Type of what is in it."""
    keep: Count | None = None
    """Most entries that are kept, the newest; null keeps all."""
    age: Count | None = None
    """Iterations after which an entry is dropped; null never drops for its age."""
    per_task: Count | None = None
    """Most entries a task; null is no limit."""
    min_reward: Number | None = None
    """Least return of an entry; null takes all."""


class Placement(Part):
    """Which accelerators the engine and the training have, where there are several; overlap means that they share."""

    engine: Annotated[tuple[Amount, ...], NotEmpty]
    """Indices of the engine's devices."""
    training: Annotated[tuple[Amount, ...], NotEmpty]
    """Indices of the training's devices."""


__all__ = ["Archive", "ArtifactType", "Engine", "Environment", "Lineage", "Placement", "Prompt", "Role", "Start", "Store"]
