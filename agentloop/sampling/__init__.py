"""Sampling: episodes of an agent in its environment, played many at a time and kept as trees of exact tokens."""
