"""The feature explorer: an interactive page of score distributions, features and their top samples."""
