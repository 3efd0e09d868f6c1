"""Architectures that are not the common decoder, one module for each kin; loaded by name when needed."""
