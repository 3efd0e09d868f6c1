"""The steps of a reconcile pass, in order. The first five change things, the last two look and tell.

When one of the first five returns False, the others of them are skipped: what is deployed stays as it is.
"""

from tonnage.control.steps.accept import accept_spec
from tonnage.control.steps.apply import apply_children
from tonnage.control.steps.decide import decide_plan
from tonnage.control.steps.model import resolve_model
from tonnage.control.steps.observe import observe_workers
from tonnage.control.steps.prune import prune_leftovers
from tonnage.control.steps.report import report_status

CHANGING = (accept_spec, resolve_model, decide_plan, apply_children, prune_leftovers)
LOOKING = (observe_workers, report_status)

__all__ = ["CHANGING", "LOOKING"]
