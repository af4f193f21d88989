"""Multi-faceted multimodal monosemanticity: which features of a vision-language model belong to which modality."""

__version__ = "0.1.0"
