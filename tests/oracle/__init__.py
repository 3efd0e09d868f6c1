"""The independent check of plans: vLLM's own KV-cache code, asked about whole models without weights or a
GPU."""
