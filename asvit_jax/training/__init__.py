"""Training: the optimizer, the step, its parallel forms, and the run that repeats it."""
