"""AIME 2025: the 30 problems of both American Invitational Mathematics Examinations of 2025, whose answers are whole numbers from 0 to 999.

Only a test split: train on something else. See docs/benchmarks.md.
"""

from __future__ import annotations

from ..questions.data import Source
from ..questions.dialogue import Benchmark


class Aime25(Benchmark):
    """Solve the problems of the AIME 2025."""

    needs = "the data set math-ai/aime25"
    source = Source(
        "aime25", "math-ai/aime25", question="problem", answer=("answer", "solution"), solution="solution", splits=(("test", "test"),)
    )
