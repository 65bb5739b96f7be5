"""Everything that trains: the objective, the loops, their optimizers, budgets and starts."""
