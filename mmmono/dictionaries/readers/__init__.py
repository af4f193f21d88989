"""Readers of dictionaries that other libraries saved; `reading` finds out which."""
