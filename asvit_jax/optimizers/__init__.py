"""What moves the parameters: optimizers, groups of parameters, and the learning rate."""
