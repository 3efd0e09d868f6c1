"""Sequences of objects, generated from the API's own schema and applied to the real control plane."""
