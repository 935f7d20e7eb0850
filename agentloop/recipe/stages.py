"""All stages as one type, `AnyStage`, read from `KIND: {...}` and written as it.

Within a kind, the word after `method`, `critic` or `dataset` chooses the model: `sample: {method: mcts, ...}` is a `TreeSearch`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, ValidationInfo, WithJsonSchema

from agentloop.recipe.build import BUILDERS, Mix
from agentloop.recipe.control import Python, Repeat, Tune
from agentloop.recipe.judge import JUDGES
from agentloop.recipe.measure import Evaluate, Gate
from agentloop.recipe.part import trouble, unknown
from agentloop.recipe.sample import SAMPLING
from agentloop.recipe.stage import Stage
from agentloop.recipe.train import TRAINERS

KINDS = ("sample", "judge", "build", "train", "evaluate", "gate", "tune", "repeat", "python")


def _by_word(key: str, models: tuple[type[Stage], ...]) -> dict[str, type[Stage]]:
    return {model.model_fields[key].annotation.__args__[0]: model for model in models}  # type: ignore[union-attr]


WORDS: dict[str, tuple[str, str, str | None, dict[str, type[Stage]]]] = {
    "sample": ("method", "sampling method", "group", _by_word("method", SAMPLING)),
    "judge": ("critic", "critic", None, _by_word("critic", JUDGES)),
    "build": ("dataset", "dataset", None, {**_by_word("dataset", BUILDERS), "mix": Mix}),
    "train": ("method", "training method", "sft", _by_word("method", TRAINERS)),
}
"""For each kind that has several models: the key that chooses, what that is called, its default, and the model of each word."""

PLAIN: dict[str, type[Stage]] = {"evaluate": Evaluate, "gate": Gate, "tune": Tune, "repeat": Repeat, "python": Python}


def model_of(tag: str) -> type[Stage]:
    """The model behind a tag, "KIND" or "KIND:WORD"."""
    kind, _, word = tag.partition(":")
    return WORDS[kind][3][word] if word else PLAIN[kind]


def tag_of(value: object) -> str:
    """Which model a stage is: "KIND" or "KIND:WORD"."""
    if isinstance(value, Stage):
        kind = value.kind
        return f"{kind}:{getattr(value, WORDS[kind][0])}" if kind in WORDS else kind
    kind, body = next(iter(value.items()))  # type: ignore[attr-defined]
    if kind not in WORDS:
        return str(kind)
    key, _, default, _ = WORDS[kind]
    word = body.get(key, "mix" if "mix" in body else default)
    return f"{kind}:{word}"


def _shape(value: object) -> Stage | dict[str, dict[str, Any]]:
    """Refuse what is not `KIND: {...}` with a known kind and a known word, before any model is asked."""
    if isinstance(value, Stage):
        return value
    if not isinstance(value, dict):
        raise trouble("a stage is written as KIND: {...}", found=value, expected="one of " + ", ".join(KINDS))
    unknown_kinds = [kind for kind in value if kind not in KINDS]
    if unknown_kinds:
        raise unknown("stage", unknown_kinds[0], KINDS, path=(unknown_kinds[0],))
    if len(value) != 1:
        raise trouble(
            "a stage has one kind", found=", ".join(map(str, value)) or "nothing", expected="KIND: {...}, each with a '-' of its own"
        )
    kind, body = next(iter(value.items()))
    if not isinstance(body, dict):
        raise trouble(f"stage {kind!r} has no settings", path=(kind,), found=body, expected=f"{kind}: {{...}}")
    if kind in WORDS:
        _check_word(kind, body)
    return value


def _check_word(kind: str, body: dict[str, Any]) -> None:
    key, what, default, models = WORDS[kind]
    words = [word for word in models if word != "mix"]
    if "mix" in body:
        if kind == "build" and body.get("dataset", "mix") != "mix":
            raise trouble("a build has a 'dataset' or a 'mix', not both", path=("build", "dataset"))
        return
    word = body.get(key, default)
    if word is None:
        raise trouble(f"stage {kind!r} needs {key!r}", path=(kind,), expected="one of " + ", ".join(sorted(words)))
    if word not in words:
        raise unknown(what, word, words, path=(kind, key))


def _read(value: object, info: ValidationInfo) -> Stage:
    """Validate a stage with its own model, which is built now if this is its first use: a recipe pays for the stages that it has."""
    value = _shape(value)
    if isinstance(value, Stage):
        return value
    body = next(iter(value.values()))
    return model_of(tag_of(value)).model_validate(body, context=info.context)


def _written(value: Stage) -> dict[str, object]:
    return {value.kind: value.model_dump(mode="json", by_alias=True, exclude_none=True)}


AnyStage = Annotated[Stage, PlainValidator(_read), PlainSerializer(_written), WithJsonSchema({"$ref": "#/$defs/Stage"})]
"""Any stage of a recipe, as pydantic reads and writes it."""

Repeat.model_rebuild(_types_namespace={"AnyStage": AnyStage})
Tune.model_rebuild(_types_namespace={"AnyStage": AnyStage})
