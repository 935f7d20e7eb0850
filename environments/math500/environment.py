"""MATH-500: 500 problems of competitions (Lightman et al. 2023, "Let's Verify Step by Step", arXiv:2305.20050, from Hendrycks et al. 2021,
"Measuring Mathematical Problem Solving With the MATH Dataset", arXiv:2103.03874).

Only a test split: train on something else. See docs/benchmarks.md.
"""

from __future__ import annotations

from ..questions.data import Source
from ..questions.dialogue import Benchmark


class Math500(Benchmark):
    """Solve problems of competitions (MATH-500)."""

    needs = "the data set HuggingFaceH4/MATH-500"
    source = Source("math500", "HuggingFaceH4/MATH-500", question="problem", solution="solution", splits=(("test", "test"),))
