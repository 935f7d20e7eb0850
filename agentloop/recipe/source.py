"""A recipe's text as data in which every value knows its line.

YAML is read by its 1.2 rules, which surprise less: `2e-4` is a number, `no` and `on` are words, `010` is ten and nothing is a date. A key
that stands twice in a mapping, a second document, a tag and an alias of itself are mistakes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

import yaml

from agentloop.errors import Mistake, nearest

Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9][0-9_]*$")
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")


class _Loader(yaml.SafeLoader):
    """Composes nodes only; scalars are resolved here, so PyYAML's implicit tags of YAML 1.1 are switched off."""

    yaml_implicit_resolvers: dict[str, Any] = {}


class _Dumper(yaml.SafeDumper):
    """Quotes text that would be read as something else, by the rules of YAML 1.1 as well as by those of this module."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # PyYAML takes these three for line breaks and folds them, except between double quotes.
    style = '"' if any(character in text for character in "\x85\u2028\u2029") else None
    return dumper.represent_scalar(f"{_TAG}str", text, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_implicit_resolver(f"{_TAG}int", _INT, list("-+0123456789"))
_Dumper.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+.0123456789"))


@dataclass(slots=True)
class Source:
    """The data of a recipe and where each value stands.

    Attributes:
        name: What messages call the file.
        data: Mappings, lists and scalars.
        lines: Line (from 1) of each path; of an entry of a mapping the line of its key.
        arguments: For paths that `--set` changed, the argument.
    """

    name: str
    data: Any
    lines: dict[Path, int] = field(default_factory=dict)
    arguments: dict[Path, str] = field(default_factory=dict)

    def place(self, path: Path) -> tuple[str, int | None]:
        """(file, line) of a value, or (argument, None) where `--set` wrote it; of the nearest part around it where it has no place
        itself.
        """
        for length in range(len(path), -1, -1):
            if path[:length] in self.arguments:
                return self.arguments[path[:length]], None
            if path[:length] in self.lines:
                return self.name, self.lines[path[:length]]
        return self.name, None


def read(path: FilePath, name: str) -> Source:
    """Read a recipe file. Raises `Mistake` where there is none, it is no text, no YAML, or empty."""
    if not path.exists():
        siblings = [str(entry.relative_to(path.parent)) for entry in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        near = nearest(path.name, siblings)
        raise Mistake("no such recipe", file=name, nearest=str(FilePath(name).parent / near) if near else None)
    return parse(_text_of(path, name), name)


def read_values(path: FilePath, name: str) -> Source:
    """Read any other YAML or JSON file, whatever its values are. Raises `Mistake` where it cannot be read."""
    text = _text_of(path, name)
    if path.suffix == ".json":
        text = text.replace("\t", " ")  # YAML takes no tabs; inside JSON's strings there are none
    node = _compose(text, name)
    source = Source(name, None)
    source.data = None if node is None else _value(node, (), source, frozenset())
    return source


def _text_of(path: FilePath, name: str) -> str:
    if not path.is_file():
        raise Mistake("not a file", file=name, expected="a YAML file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise Mistake("not a text file", file=name, expected="YAML in UTF-8") from None
    except OSError as error:
        raise Mistake(f"the file cannot be read ({error.strerror})", file=name) from None


def parse(text: str, name: str) -> Source:
    """The same for text at hand."""
    node = _compose(text, name)
    if node is None:
        raise Mistake("the recipe is empty", file=name, expected="name, model, environment and stages")
    source = Source(name, None)
    source.data = _value(node, (), source, frozenset())
    if not isinstance(source.data, dict):
        raise Mistake("the recipe is no mapping", file=name, line=1, expected="KEY: VALUE, beginning with name")
    return source


def parse_value(text: str, argument: str) -> Any:
    """A value that a command-line argument gives, read as YAML."""
    node = _compose(text, argument)
    return None if node is None else _value(node, (), Source(argument, None), frozenset())


def written(data: Any) -> str:
    """Data as YAML, which `parse` reads back as it was."""
    return str(yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.composer.ComposerError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        problem = "a recipe is one document" if "single document" in str(error.context) else str(error.problem)
        raise Mistake(problem, file=name, line=line) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if "\\t" in (error.problem or ""):
            raise Mistake("a tab", file=name, line=mark.line + 1, expected="spaces") from None
        begun = error.context_mark.line + 1 if error.context and error.context_mark else None
        context = f" {error.context}" + (f" begun in line {begun}" if begun not in (None, mark.line + 1) else "") if error.context else ""
        raise Mistake(f"not valid YAML{context}: {error.problem}", file=name, line=mark.line + 1) from None
    except yaml.reader.ReaderError as error:
        raise Mistake(f"not valid YAML: a special character ({error.character!r})", file=name) from None


def _value(node: yaml.Node, path: Path, source: Source, above: frozenset[int]) -> Any:
    """The value of a node; `above` holds the nodes around it, by which an alias of itself is found."""
    source.lines.setdefault(path, node.start_mark.line + 1)
    line = node.start_mark.line + 1
    if id(node) in above:
        raise Mistake("an alias of what it stands in", file=source.name, line=line)
    above |= {id(node)}
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, source.name)
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        return [_value(entry, (*path, index), source, above) for index, entry in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_TAG}map":
        return _mapping(node, path, source, above)
    raise Mistake(f"a tag, {node.tag!r}", file=source.name, line=line, expected="a plain value")


def _mapping(node: yaml.MappingNode, path: Path, source: Source, above: frozenset[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            raise Mistake("a key is no word", file=source.name, line=line, expected="KEY: VALUE")
        key = str(key_node.value)
        if key in found:
            raise Mistake(f"key {key!r} stands twice, first in line {source.lines[(*path, key)]}", file=source.name, line=line)
        source.lines[(*path, key)] = line
        found[key] = _value(value_node, (*path, key), source, above)
    return found


def _scalar(node: yaml.ScalarNode, name: str) -> str | int | float | bool | None:
    text = node.value
    if node.tag != f"{_TAG}str":
        raise Mistake(f"a tag, {node.tag!r}", file=name, line=node.start_mark.line + 1, expected="a plain value")
    if node.style is not None:  # quoted, or a block of text
        return _joined(str(text))
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return bool(text.lower() == "true")
    if _INT.match(text):
        return int(text.replace("_", ""))
    if _FLOAT.match(text):
        return float(text.replace("_", ""))
    return str(text)


def _joined(text: str) -> str:
    """JSON writes what lies beyond 16 bits as two halves, which YAML keeps apart; a half without its other is no character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
