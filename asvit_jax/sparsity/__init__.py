"""What makes the transformer sparse: scores, gates, reductions, attention, executions, budgets."""
