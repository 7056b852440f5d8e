"""The training engine: one for all variants."""
