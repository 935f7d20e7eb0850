"""SVAMP: 1,000 word problems of one step with changed wording (Patel et al. 2021, "Are NLP Models really able to Solve Simple Math Word
Problems?", arXiv:2103.07191).

700 are train, of which a ninth is dev here, and 300 are test, as in the copy on the hub. See docs/benchmarks.md.
"""

from __future__ import annotations

from ..questions.data import Source
from ..questions.dialogue import Benchmark


class Svamp(Benchmark):
    """Solve word problems of one step with tricky wording (SVAMP)."""

    needs = "the data set ChilleD/SVAMP"
    source = Source("svamp", "ChilleD/SVAMP", question="{Body} {Question}", answer=("Answer",))
