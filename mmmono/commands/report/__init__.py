"""The report: one page with all existing results beside those of the paper."""
