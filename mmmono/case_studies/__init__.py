"""Case studies: applications of modality-specific features (Section 4)."""
