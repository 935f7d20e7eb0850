"""`NAME=VALUE` on a command line, with values read as YAML, so that `depth=2` is a number and `words=[a, b]` a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agentloop.errors import Mistake


def parse_options(pairs: Iterable[str], flag: str) -> dict[str, Any]:
    """The pairs that `flag` was given, as a mapping; the last one of a name counts. Raises `Mistake`."""
    import yaml

    options: dict[str, Any] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise Mistake(f"{flag} takes NAME=VALUE", found=pair)
        try:
            options[name.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            options[name.strip()] = value
    return options
