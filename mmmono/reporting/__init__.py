"""What is shown: figures and tables of results."""
