"""What entrypoints do besides running one analysis: pages, plans and make targets, as loops over the analyses."""
