"""What training minimises: a weighted sum of terms, see `terms` and `objective`."""

# The weight of each term by default: those of the authors' code.
WEIGHTS = {
  "classification": 1.0,
  "budget": 2.0,  # a GMAC away from the target
  "distillation": 0.5,
  "token_distillation": 0.5,  # of the auxiliary head, where there is one
}
