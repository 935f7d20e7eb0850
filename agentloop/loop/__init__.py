"""The loop: executes a recipe's stages in a run directory, keeps the lineage of adapters, serves what was trained, and resumes."""
