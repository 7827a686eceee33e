"""Optimizers, groups of parameters that they treat differently, and the learning rate."""
