"""Real vLLM on CPU: its installation and the models it serves in tests."""
