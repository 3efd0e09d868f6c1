"""Tonnage: sizes, starts, verifies and scales vLLM on Kubernetes by calculation."""

__version__ = "0.1.0"
