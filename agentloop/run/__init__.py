"""A run on disk: its directory, lock, journal, atomic artifacts and metrics."""
