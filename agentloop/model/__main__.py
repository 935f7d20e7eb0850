"""`python -m agentloop.model NAME` prints the folder of a model, made if need be."""

from __future__ import annotations

import sys

from agentloop.errors import AgentloopError
from agentloop.model import resolve


def main(arguments: list[str]) -> int:
    """Resolve one name; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m agentloop.model NAME", file=sys.stderr)
        return 2
    try:
        print(resolve(arguments[0]).path)
    except AgentloopError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
