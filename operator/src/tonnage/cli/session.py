"""The cluster of a command: opened for reading, closed at the end, its refusals told with what to do."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from tonnage.cli.errors import Missing, UsageError
from tonnage.cluster.guard import GuardedCluster
from tonnage.cluster.kubeconfig import KubeconfigError, open_session
from tonnage.cluster.kubernetes import KubernetesCluster
from tonnage.cluster.port import ApiError, Cluster, Kind, Object

T = TypeVar("T")
_UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """The cluster, the context's name, and the namespace of objects that name none."""

    cluster: Cluster
    context: str
    namespace: str


def ask(options: argparse.Namespace, question: Callable[[Here], Awaitable[T]]) -> T:
    """The answer to a question about the cluster that the options name. Raises UsageError."""

    async def answered() -> T:
        async with _opened(options) as here:
            return await question(here)

    return asyncio.run(answered())


async def read_all(
    here: Here, kind: Kind, *, namespace: str = "", selector: str = ""
) -> list[Object] | Missing:
    """All objects of a kind, of all namespaces if none is named; or why they cannot be read."""
    try:
        return (await here.cluster.list(kind, namespace=namespace, selector=selector)).items
    except ApiError as error:
        return Missing(_why(error, f"{kind.plural} in {namespace}" if namespace else f"all {kind.plural}"))


async def is_served(here: Here, kind: Kind, *, namespace: str) -> bool:
    """Does the API server serve a kind that a cluster may be without? Where it does not tell, it may."""
    try:
        await here.cluster.list(kind, namespace=namespace)
    except ApiError as error:
        return not error.not_found
    return True


async def read_one(here: Here, kind: Kind, *, namespace: str, name: str) -> Object | Missing | None:
    """One object; None if there is none, or why it cannot be read."""
    try:
        return await here.cluster.get(kind, namespace=namespace, name=name)
    except ApiError as error:
        return Missing(_why(error, f"{kind.plural} in {namespace}", verb="get"))


def _why(error: ApiError, what: str, *, verb: str = "list") -> str:
    if error.forbidden:
        return f"you may not {verb} {what}: {error.message}"
    if error.status == _UNAUTHORIZED:
        return f"the API server does not know you ({error.message}): renew the credentials of the kubeconfig"
    if error.not_found:
        return f"the API server has no {what}: Tonnage is not installed there"
    if error.status == 0:
        return f"the API server does not answer: {error.message}"
    return f"{what} cannot be read: {error}"


@asynccontextmanager
async def _opened(options: argparse.Namespace) -> AsyncIterator[Here]:
    try:
        session = await open_session(kubeconfig=options.kubeconfig, context=options.context)
    except KubeconfigError as error:
        raise UsageError(str(error)) from None
    try:
        # nothing here writes, and nothing here could
        yield Here(
            cluster=GuardedCluster(
                KubernetesCluster(session.client), may_write=lambda: False, clock=time.monotonic
            ),
            context=session.context,
            namespace=options.namespace or session.namespace,
        )
    finally:
        await session.client.close()
