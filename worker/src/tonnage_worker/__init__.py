"""Supervises one vLLM engine; imports neither torch nor vllm itself."""
