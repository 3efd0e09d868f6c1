"""Histories that broke a promise once, each shrunk, with the fault that they found: played first."""

from __future__ import annotations

from typing import Final

from sequences.generate import History, Step
from sequences.ground import BASE, CLAIM, NOWHERE, SMALL

FOUND: Final = {
    "an account that was taken back stayed: the API server keeps it under the field's old name too": History(
        (Step({**BASE, "template": {"serviceAccountName": "another"}}), Step(BASE))
    ),
    "a Job went on waiting to read a model that was no longer asked for": History(
        (Step({"model": {"uri": f"pvc://{NOWHERE}/model"}}), Step(BASE))
    ),
    "a plan that differed in prefix caching alone had the name of the one before, and did not stay": History(
        (Step(BASE), Step({**BASE, "cache": {"prefixCaching": "Disabled"}}))
    ),
    "what serves was judged by the replicas of a spec that was refused": History(
        (
            Step(BASE),
            Step({**BASE, "template": {"nodeSelector": {"pool": "tainted"}}, "replicas": 0}),
            Step(BASE),
        )
    ),
    "a plan that two models share was kept under the name of the first": History(
        (Step(BASE), Step({"model": {"uri": f"pvc://{CLAIM}/copies/{SMALL}"}}))
    ),
}
