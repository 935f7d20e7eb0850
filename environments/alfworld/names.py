"""The names of ALFWorld's things: "mug 2" for what the planning problem calls `mug_bar__plus_00_dot_36_bar_...`.

Numbered as the `alfworld` package numbers them, so that results can be compared: of each kind, the last by identifier is number 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

SEPARATOR = "_bar_"
_SIGNS = {"_minus_": "-", "_plus_": "+", "_dot_": ".", "_comma_": ","}


def readable_names(identifiers: Iterable[str]) -> Mapping[str, str]:
    """The readable name of each identifier; one without a place in the room keeps its own."""
    ordered = sorted(identifiers)
    left = Counter(_kind(identifier) for identifier in ordered if SEPARATOR in identifier)
    names = {}
    for identifier in ordered:
        kind = _kind(identifier)
        if SEPARATOR not in identifier:
            names[identifier] = f"{kind} "  # with the blank that the package leaves there
            continue
        names[identifier] = f"{kind} {left[kind]}"
        left[kind] -= 1
    return names


def _kind(identifier: str) -> str:
    """The kind of thing: "sinkbasin" for the basin of a sink, which the problem calls a sink too."""
    kind = identifier.partition(SEPARATOR)[0]
    if SEPARATOR in identifier:
        return f"{kind}basin" if "basin" in identifier else kind
    for code, sign in _SIGNS.items():
        kind = kind.replace(code, sign)
    return kind
