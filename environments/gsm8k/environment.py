"""GSM8K: 8,792 word problems of grade school (Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems", arXiv:2110.14168).

The test split is the official one; a ninth of the official train split is dev. See docs/benchmarks.md.
"""

from __future__ import annotations

from ..questions.data import Source
from ..questions.dialogue import Benchmark


class Gsm8k(Benchmark):
    """Solve word problems of grade school (GSM8K)."""

    needs = "the data set openai/gsm8k"
    source = Source("gsm8k", "openai/gsm8k", config="main")
