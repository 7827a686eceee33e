"""The training objective: a weighted sum of loss terms, see `terms` and `objective`."""

# The default weight of each term: those of the authors' code.
WEIGHTS = {
  "classification": 1.0,
  "budget": 2.0,  # per GMAC away from the target
  "distillation": 0.5,
  "token_distillation": 0.5,  # of the auxiliary head, if there is one
}
