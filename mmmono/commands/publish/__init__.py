"""A dictionary for others to use: a folder with a model card, and a repository on the hub."""
