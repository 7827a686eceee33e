"""Token pruning and merging: scores, gates, reductions, attention, executions, budgets."""
