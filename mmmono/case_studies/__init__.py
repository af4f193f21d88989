"""What modality-aware features can be used for (Section 4)."""
