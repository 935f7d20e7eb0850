"""The tables of `docs/recipes.md`: `python -m agentloop.recipe.reference_page` writes them after the marker in that file.

Every key, its type, default and meaning come from the models, so the page cannot say anything that the loader does not do.
"""

from __future__ import annotations

import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from agentloop.recipe import descriptions
from agentloop.recipe.available import AVAILABLE, PARTS
from agentloop.recipe.build import Build, TreeBuild
from agentloop.recipe.judge import Judge, ModelJudge
from agentloop.recipe.part import Part
from agentloop.recipe.recipe import Recipe
from agentloop.recipe.reference import Reference
from agentloop.recipe.sample import Critic, Memory, Sample, Seat, StartFrom
from agentloop.recipe.schedule import Scheduled
from agentloop.recipe.settings import Archive, Engine, Environment, Placement, Prompt, Role, Store
from agentloop.recipe.stage import METRICS, When, Work
from agentloop.recipe.stages import PLAIN, WORDS
from agentloop.recipe.train import Covariance, Replay, Train

HOME = Path(__file__).resolve().parents[2] / "docs" / "recipes.md"
MARKER = "<!-- Everything below is written by `python -m agentloop.recipe.reference_page`. -->"

_BASES: dict[str, tuple[type[Part], ...]] = {
    "sample": (Sample,),
    "judge": (Judge, ModelJudge),
    "build": (Build, TreeBuild),
    "train": (Train,),
}
_PARTS: dict[str, type[Part]] = {
    "`environment`": Environment,
    "`roles: {NAME: ...}`": Role,
    "`engine`": Engine,
    "`prompt`": Prompt,
    "`lineage: {archive: ...}`": Archive,
    "`stores: {NAME: ...}`": Store,
    "`placement`": Placement,
    "`when` and `until`": When,
}
_PARTS_OF_SAMPLE: dict[str, type[Part]] = {
    "`start_from`": StartFrom,
    "`critic`": Critic,
    "`seats: {NAME: ...}`": Seat,
    "`memory`": Memory,
}
_PARTS_OF_TRAIN: dict[str, type[Part]] = {"`covariance`": Covariance, "`replay`": Replay}
_NAMES = {int: "whole number", float: "number", bool: "true or false", str: "text"}


def tables() -> str:
    """The reference, as Markdown."""
    lines = ["## Reference", "", "A number with a `*` may be a schedule. Where no default is given, the key is required; `–` is null.", ""]
    lines += _section("### The recipe", Recipe)
    for title, model in _PARTS.items():
        lines += _section(f"### {title}", model)
    lines += _section("### Every stage with work to do", Work)
    for kind in WORDS:
        lines += _kind(kind)
    for kind, stage in PLAIN.items():
        lines += _section(f"### `{kind}`{_available('stage', kind)}", stage, without=Work if issubclass(stage, Work) else Part)
    for title, model in _PARTS_OF_SAMPLE.items():
        lines += _section(f"### {title} of a sample", model)
    for title, model in _PARTS_OF_TRAIN.items():
        lines += _section(f"### {title} of a train", model)
    lines += _not_yet()
    return "\n".join(lines).rstrip() + "\n"


def _not_yet() -> list[str]:
    """The words and parts of the language that this version refuses."""
    words = {"stage": tuple(PLAIN), "metric": METRICS, "part": PARTS} | {what: tuple(models) for _, what, _, models in WORDS.values()}
    missing = {what: [word for word in known if word not in AVAILABLE[what]] for what, known in words.items()}
    lines = [
        "### Not in this version",
        "",
        "The language has these, and a recipe that uses one is refused with its line when it is loaded.",
        "",
    ]
    for what, names in missing.items():
        marked = [name if what == "part" else f"`{name}`" for name in names]
        lines += [f"- {what}: {', '.join(marked)}"] if marked else []
    return [*lines, ""]


def _kind(kind: str) -> list[str]:
    """The section of a kind that has several models: what they share, then what each adds."""
    key, what, default, models = WORDS[kind]
    bases = _BASES[kind]
    lines = _section(f"### `{kind}`{_available('stage', kind)}", bases[0], without=Work)
    for word, model in models.items():
        mark = " (default)" if word == default else ""
        base = _nearest_base(model, (*reversed(bases), Work))
        title = f"#### `mix`{_available(what, word)}" if word == "mix" else f"#### `{key}: {word}`{mark}{_available(what, word)}"
        lines += _section(title, model, without=base, skip=key)
    for shared in bases[1:]:
        lines += _section(f"#### Shared by several of these: {_first(shared)}", shared, without=bases[0], described=False)
    return lines


def _nearest_base(model: type[Part], bases: tuple[type[Part], ...]) -> type[Part]:
    return next(base for base in bases if issubclass(model, base))


def _available(what: str, word: str) -> str:
    return "" if word in AVAILABLE[what] else " (not in this version)"


def _first(model: type[BaseModel]) -> str:
    text = " ".join((model.__doc__ or "").split())
    return text[0].lower() + text[1:].rstrip(".")


def _section(
    title: str, model: type[BaseModel], *, without: type[BaseModel] = Part, skip: str | None = None, described: bool = True
) -> list[str]:
    """A heading, the model's docstring and a row for each key that `without` does not have or has otherwise."""
    text = descriptions.of_model(model)
    inherited = {name: (repr(field.default), field.annotation) for name, field in without.model_fields.items()}
    rows: list[str] = []
    for name, field in model.model_fields.items():
        key = field.alias or name
        same = inherited.get(name) == (repr(field.default), field.annotation) and text.get(key) == descriptions.of_model(without).get(key)
        if key != skip and not same:
            rows.append(f"| `{key}` | {_type(field)} | {_default(field)} | {text.get(key, '')} |")
    lines = [title, ""]
    if described:
        lines += [" ".join((model.__doc__ or "").split()), ""]
    if rows:
        lines += ["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    return lines


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, Scheduled):
        value = value.data()
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return "`[" + ", ".join(map(str, value)) + "]`"
    if isinstance(value, dict | BaseModel):
        return "`{}`" if not isinstance(value, BaseModel) else "its defaults"
    return f"`{value}`"


def _type(field: FieldInfo) -> str:
    return _named(field.annotation, tuple(field.metadata))


def _named(annotation: Any, metadata: tuple[Any, ...] = ()) -> str:
    """A type in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _named(arguments[0], arguments[1:])
    if origin is Scheduled:
        return _named(arguments[0]) + " *"
    if origin is Literal:
        return " \\| ".join(f"`{word}`" for word in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_named(part, metadata) for part in arguments if part is not type(None))
    if origin is dict:
        return f"NAME: {_named(arguments[1])}"
    if origin is tuple:
        return "reference or list of them" if arguments[0] is Reference else f"list of {_named(arguments[0])}"
    if annotation in _NAMES:
        return _NAMES[annotation] + _bounds(metadata)
    if annotation is Reference:
        return "reference"
    return "stages" if annotation.__name__ == "Stage" else "mapping"


def _bounds(metadata: tuple[Any, ...]) -> str:
    """For example ", 0 to 1" or ", more than 0"."""
    entries = [inner for entry in metadata for inner in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]
    found = {name: getattr(entry, name) for entry in entries for name in _BOUNDS if getattr(entry, name, None) is not None}
    if "ge" in found and "le" in found:
        return f", {found['ge']:g} to {found['le']:g}"
    return "".join(", " + words.format(found[name]) for name, words in _BOUNDS.items() if name in found)


_BOUNDS = {"ge": "{:g} or more", "gt": "more than {:g}", "le": "at most {:g}", "lt": "less than {:g}"}


def page(before: str) -> str:
    """The whole page, of which the part before the marker is kept."""
    return before.split(MARKER)[0] + MARKER + "\n\n" + tables()


if __name__ == "__main__":
    HOME.write_text(page(HOME.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {HOME}")
