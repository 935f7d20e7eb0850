"""Turns, trees, segments, the token renderer, the Parquet store and the token ledger."""
