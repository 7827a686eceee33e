"""The workdir of a run: its files, its lock, its metrics and its checkpoints."""
