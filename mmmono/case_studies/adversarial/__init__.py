"""Case study 2: which features carry an attack on an image encoder and defend against it (Section 4.2, A.4.2)."""
