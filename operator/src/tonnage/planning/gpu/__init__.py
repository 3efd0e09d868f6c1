"""Plans on GPUs: which pool, how many devices, what is given up, and why not something else. Pure.

Nothing is imported here, so that `tonnage fit` starts without it.
"""
