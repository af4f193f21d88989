"""The plan of a reproduction: what it computes, downloads and reuses, how long it takes, and what will fail."""
