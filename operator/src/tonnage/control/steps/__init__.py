"""The steps of a reconcile pass, in order: decide, bring about, look and tell.

When one that decides returns False, nothing new is brought about: what was deployed before is kept as it was.
"""

from tonnage.control.steps.accept import accept_spec
from tonnage.control.steps.apply import bring_children, heal_children
from tonnage.control.steps.decide import decide_plan
from tonnage.control.steps.learn import learn_from_workers
from tonnage.control.steps.model import resolve_model
from tonnage.control.steps.observe import observe_workers
from tonnage.control.steps.prune import prune_leftovers
from tonnage.control.steps.report import report_status

DECIDING = (accept_spec, resolve_model, decide_plan)
BRINGING = (bring_children, prune_leftovers)
LOOKING = (observe_workers, learn_from_workers, report_status)

__all__ = ["BRINGING", "DECIDING", "LOOKING", "heal_children"]
