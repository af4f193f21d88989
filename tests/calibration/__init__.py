"""How often the intervals that mmmono prints cover, and how often its tests err, measured by simulation."""
