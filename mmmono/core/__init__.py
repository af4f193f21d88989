"""What every other folder stands on: errors and addressed artifacts."""
