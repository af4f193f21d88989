"""Commands that loop over all analyses: the report, the explorer, plans and make targets."""
