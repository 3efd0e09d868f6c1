"""Tonnage: sizes, starts and verifies vLLM on Kubernetes by calculation."""

__version__ = "0.1.0"
