"""A run's workdir: what it is, what it measured, and the steps it saved."""
