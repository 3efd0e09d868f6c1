"""From a demand, a model, nodes and an engine to one exact plan, or a rejection with numbers. Pure.

Nothing is imported here: `tonnage fit` needs the sizing alone and starts without the rest.
"""
