"""Step 1: is this a spec that can be acted on?"""

from __future__ import annotations

from tonnage.api.acceptance import Refusal, accept
from tonnage.api.status import ConditionType
from tonnage.control.world import Pass, World


async def accept_spec(p: Pass, _world: World) -> bool:
    """Parse the spec; a refusal leaves everything that is deployed as it is."""
    result = accept(p.body)
    if isinstance(result, Refusal):
        p.found(ConditionType.ACCEPTED, False, result.reason, result.message)
        return False
    p.spec = result
    p.found(ConditionType.ACCEPTED, True, "Accepted")
    return True
