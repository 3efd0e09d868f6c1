"""From a demand, a model, nodes and an engine to one exact plan, or a rejection with numbers. Pure."""

from tonnage.planning.choose import plan_for
from tonnage.planning.plan import Alternative, Demand, MemoryBytes, Plan, Quality, Rejection

__all__ = ["Alternative", "Demand", "MemoryBytes", "Plan", "Quality", "Rejection", "plan_for"]
