"""Ways to run a network on fewer tokens, at the same GMACs, with the same weights and images."""
