"""Figures, tables and pages that present results."""
