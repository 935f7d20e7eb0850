"""Prints the count of tests from pytest's JUnit file as `N passed, N failed, N skipped`; exit code 1 if no test ran."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path


def count(text: str) -> tuple[int, int, int]:
    """Passed, failed (errors included) and skipped tests of a JUnit file; raises `ParseError` if it is not one."""
    suites = ElementTree.fromstring(text).iter("testsuite")
    totals = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    for suite in suites:
        for key in totals:
            totals[key] += int(suite.get(key, "0"))
    failed = totals["failures"] + totals["errors"]
    return totals["tests"] - failed - totals["skipped"], failed, totals["skipped"]


def main(path: str) -> int:
    """Print the line; a missing or broken file counts as one failure."""
    try:
        passed, failed, skipped = count(Path(path).read_text(encoding="utf-8"))
    except (OSError, ElementTree.ParseError):
        print("no test results were written", file=sys.stderr)
        passed, failed, skipped = 0, 1, 0
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 0 if passed + failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
