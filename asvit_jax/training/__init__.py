"""Training: the optimizer, the step, its parallel forms, the loop."""
