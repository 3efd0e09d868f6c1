"""`tonnage explain`: what became of an LLMDeployment, from what the API server holds."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from typing import Any

from tonnage.cli.errors import Missing, UsageError, complain
from tonnage.cli.exits import FINE, USAGE
from tonnage.cli.output import render
from tonnage.cli.parser import meant
from tonnage.cli.plan_view import part
from tonnage.cli.session import Here, ask, read_all, read_one
from tonnage.cli.state import State, Taught
from tonnage.cluster.port import CONFIG_MAP, DEPLOYMENT, GROUP_SET, LLM_DEPLOYMENT, POD, Object
from tonnage.cluster.records import pod_record
from tonnage.planning.words import is_learned
from tonnage.rendering.learned import LEARNED_COMPONENT, learned_in
from tonnage.rendering.lessons import key_of_start
from tonnage.rendering.names import COMPONENT, PLAN, Owner, owned_by, plan_name
from tonnage.rendering.names import DEPLOYMENT as DEPLOYMENT_LABEL
from tonnage.rendering.plan import read_kept
from tonnage.rendering.workloads import as_deployment

_KINDS = (
    "llmdep",
    "llmdeployment",
    "llmdeployments",
    "llmdeployments.tonnage.dev",
    "llmdeployment.tonnage.dev",
)


def run(options: argparse.Namespace) -> int:
    """Tell, and return the exit code."""
    try:
        name = _name(options)
        if name is None:
            return _list(options)
        state = ask(options, lambda here: _read(here, name))
    except UsageError as error:
        complain(options, str(error))
        return USAGE
    if options.output == "text":
        from tonnage.cli.explain_text import write  # noqa: PLC0415 - programs ask for the other forms

        write(state)
    else:
        from tonnage.cli.explain_document import document  # noqa: PLC0415

        sys.stdout.write(render(document(state), options.output))
    return state.code


def _name(options: argparse.Namespace) -> str | None:
    if options.name is None:
        return None
    kind, slash, name = options.name.rpartition("/")
    if slash and kind.lower() not in _KINDS:
        raise UsageError(f"{options.name!r} is no LLMDeployment: write NAME or llmdep/NAME")
    if options.all_namespaces:
        raise UsageError("-A lists the LLMDeployments of all namespaces: leave out NAME, or use --namespace")
    if not name:
        raise UsageError("the name is empty: write NAME or llmdep/NAME")
    return str(name)


async def _read(here: Here, name: str) -> State:
    body = await read_one(here, LLM_DEPLOYMENT, namespace=here.namespace, name=name)
    if isinstance(body, Missing):
        raise UsageError(body.why)
    if body is None:
        raise UsageError(await _not_found(here, name))
    owner = Owner(namespace=here.namespace, name=name, uid=body["metadata"]["uid"])
    deployment = await read_one(here, DEPLOYMENT, namespace=here.namespace, name=name)
    if isinstance(deployment, dict) and not owned_by(deployment, owner):
        deployment = None
    if not isinstance(deployment, Missing):
        deployment = await _workload(here, owner, deployment, wanted=_plan_of(body))
    pods = await read_all(here, POD, namespace=here.namespace, selector=f"{DEPLOYMENT_LABEL}={name}")
    records = pods if isinstance(pods, Missing) else sorted(map(pod_record, pods), key=lambda pod: pod.name)
    state = State(body=body, deployment=deployment, pods=records)
    return replace(state, learned=await _learned(here, state, owner))


async def _learned(here: Here, state: State, owner: Owner) -> Taught | Missing | None:
    """What starts taught of the plan in force."""
    own_arguments = part(state.body, "spec", "engine").get("extraArgs")
    if own_arguments or not part(state.plan, "placement").get("gpusPerReplica"):
        return None
    maps = await read_all(here, CONFIG_MAP, selector=f"{COMPONENT}={LEARNED_COMPONENT}")
    if isinstance(maps, Missing):
        return maps
    name = plan_name(owner, state.plan_hash)
    stored = await read_one(here, CONFIG_MAP, namespace=owner.namespace, name=name)
    if isinstance(stored, Missing):
        return stored
    kept = read_kept(stored) if stored is not None and owned_by(stored, owner) else None
    key = key_of_start(kept) if kept is not None else None
    found = learned_in(maps, namespace=owner.namespace).of(key) if key is not None else None
    if kept is None or key is None or found is None:
        return None
    return Taught(
        key=key.entry,
        starts=len(found.starts),
        estimate_mib=found.estimate_mib,
        bound_mib=found.bound_mib,
        residuals_mib=found.residuals_mib,
        used=is_learned(kept.plan.reason),
    )


async def _workload(here: Here, owner: Owner, deployment: Object | None, *, wanted: str) -> Object | None:
    """The workload of the plan in force, in the words of a Deployment; else whichever there is."""
    selector = f"{DEPLOYMENT_LABEL}={owner.name}"
    found = await read_all(here, GROUP_SET, namespace=here.namespace, selector=selector)
    sets = [] if isinstance(found, Missing) else [body for body in found if owned_by(body, owner)]
    known = [dict(as_deployment(body)) for body in (*sets, *([deployment] if deployment else []))]
    by_plan = {body["spec"]["template"]["metadata"]["labels"].get(PLAN): body for body in known}
    return by_plan.get(wanted, known[0] if known else None)


def _plan_of(body: Object) -> str:
    return str(body.get("status", {}).get("plan", {}).get("hash", ""))


async def _not_found(here: Here, name: str) -> str:
    others = await read_all(here, LLM_DEPLOYMENT, namespace=here.namespace)
    if isinstance(others, Missing):
        return others.why
    names = [str(body["metadata"]["name"]) for body in others]
    text = f"there is no LLMDeployment {name} in namespace {here.namespace} (context {here.context})"
    return text + (meant(name, names) or ("; `tonnage explain -A` lists all" if not names else ""))


def _list(options: argparse.Namespace) -> int:
    namespace, found = ask(options, lambda here: _read_list(here, everywhere=options.all_namespaces))
    states = [State(body=body, deployment=None, pods=()) for body in found]
    if options.output == "text":
        from tonnage.cli.explain_text import write_list  # noqa: PLC0415

        write_list(states, namespace=namespace)
    else:
        document: dict[str, Any] = {"objects": [_summary(state) for state in states]}
        sys.stdout.write(render(document, options.output))
    return FINE


async def _read_list(here: Here, *, everywhere: bool) -> tuple[str, list[Object]]:
    namespace = "" if everywhere else here.namespace
    found = await read_all(here, LLM_DEPLOYMENT, namespace=namespace)
    if isinstance(found, Missing):
        raise UsageError(found.why)
    return namespace, found


def _summary(state: State) -> dict[str, Any]:
    ready = next((each for each in state.conditions if each.type == "Ready"), None)
    return {
        "name": state.name,
        "namespace": state.namespace,
        "current": state.current,
        "ready": state.ready,
        "refused": state.refused,
        "phase": state.status.get("phase"),
        "plan_hash": state.plan_hash or None,
        "reason": ready.reason if ready else None,
        "message": ready.message if ready else None,
    }
