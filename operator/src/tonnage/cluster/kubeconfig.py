"""The cluster that somebody at a terminal means: a context of a kubeconfig, else the one around us."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

DEFAULT_PATH = "~/.kube/config"
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class KubeconfigError(Exception):
    """There is no usable kubeconfig; the message says which one, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A client for one context, and the namespace that the context names."""

    client: ApiClient
    context: str
    namespace: str


async def open_session(*, kubeconfig: str | None = None, context: str | None = None) -> Session:
    """A client for the context, by default the current one of KUBECONFIG or ~/.kube/config.

    The client is the caller's to close. Raises KubeconfigError.
    """
    configuration = Configuration()
    if kubeconfig is None and context is None and not _exists(_default_path()):
        return _inside(configuration)
    path = kubeconfig or _default_path()
    with _explained(path):
        loader = await config.load_kube_config(
            config_file=path, context=context, client_configuration=configuration, persist_config=False
        )
        chosen: Mapping[str, Any] = loader.current_context
        return Session(
            client=ApiClient(configuration),
            context=str(chosen["name"]),
            namespace=str(chosen["context"].get("namespace") or "default"),
        )


def contexts(kubeconfig: str | None = None) -> list[str]:
    """Names of the contexts of a kubeconfig. Raises KubeconfigError."""
    path = kubeconfig or _default_path()
    with _explained(path):
        found, _ = config.list_kube_config_contexts(config_file=path)
        return [str(each["name"]) for each in found]


def _inside(configuration: Configuration) -> Session:
    try:
        config.load_incluster_config(client_configuration=configuration)
        namespace = _NAMESPACE_FILE.read_text().strip()
    except (config.ConfigException, OSError):
        raise KubeconfigError(
            f"there is no kubeconfig: {_default_path()} does not exist and KUBECONFIG names none"
        ) from None
    return Session(client=ApiClient(configuration), context="in-cluster", namespace=namespace or "default")


def _default_path() -> str:
    return os.environ.get("KUBECONFIG") or os.path.expanduser(DEFAULT_PATH)


def _exists(paths: str) -> bool:
    return any(os.path.exists(os.path.expanduser(path)) for path in paths.split(os.pathsep) if path)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """What the client says of a kubeconfig that it cannot use, as one sentence without its content."""
    if not _exists(path):
        raise KubeconfigError(f"the kubeconfig {path} does not exist")
    logger = logging.getLogger("kubernetes.aio.config.kube_config")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    except config.ConfigException as error:
        # the client puts whole entries into its messages, and with them tokens
        why = str(error).partition("{")[0][:300]
        raise KubeconfigError(f"the kubeconfig {path} cannot be used: {why}") from None
    except OSError as error:
        why = f"{error.filename or 'it'}: {error.strerror or type(error).__name__}"
        raise KubeconfigError(f"the kubeconfig {path} cannot be used: {why}") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError):
        raise KubeconfigError(f"the kubeconfig {path} is not one: it is no YAML of that form") from None
    finally:
        logger.disabled = disabled
