"""The architectures that are understood, as data: one table for each kin."""
