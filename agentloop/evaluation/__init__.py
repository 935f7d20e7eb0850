"""Evaluation: what an agent achieves on a benchmark, as measurements with intervals that respect that samples of a task are alike."""
