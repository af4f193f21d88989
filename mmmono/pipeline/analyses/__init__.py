"""What each entrypoint does with a workspace: compute unless it is there, save, show."""
