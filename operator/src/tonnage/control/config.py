"""The process's settings, from its environment (set by the chart)."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from tonnage.api.static_inventory import read_static
from tonnage.control.room import NOTHING_STATED, Offer
from tonnage.planning.residuals import repository_of
from tonnage.rendering.settings import HubSettings, Settings

NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class ConfigError(Exception):
    """A setting is missing or unreadable; the message names the variable and the chart value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Where the operator runs and what it hands to all objects.

    `watched` are the namespaces whose LLMDeployments it serves; none means all. `learned` names the ConfigMap
    that keeps what starts teach, "" where nothing is learned, and `trusted` the repositories whose images
    teach.
    """

    settings: Settings
    namespace: str
    lease: str
    identity: str
    health_port: int
    log_level: str
    watched: tuple[str, ...] = ()
    reads_nodes: bool = True
    offer: Offer = NOTHING_STATED
    learned: str = ""
    trusted: tuple[str, ...] = ()


def read_config(environment: Mapping[str, str] = os.environ) -> Config:
    """The settings; ConfigError says which variable is wrong."""
    port = environment.get("TONNAGE_HEALTH_PORT", "8080")
    if not port.isdigit():
        raise ConfigError(f"TONNAGE_HEALTH_PORT is {port!r}: it must be a port number")
    return Config(
        settings=Settings(
            operator_image=_needed(environment, "TONNAGE_OPERATOR_IMAGE", "image"),
            worker_image=_needed(environment, "TONNAGE_WORKER_IMAGE", "worker.image"),
            engine_version=_needed(environment, "TONNAGE_ENGINE_VERSION", "worker.engineVersion"),
            image_pull_policy=environment.get("TONNAGE_IMAGE_PULL_POLICY", "IfNotPresent"),
            hub=HubSettings(
                endpoint=environment.get("TONNAGE_HUB_ENDPOINT", ""),
                https_proxy=environment.get("TONNAGE_HUB_HTTPS_PROXY", ""),
                no_proxy=environment.get("TONNAGE_HUB_NO_PROXY", ""),
            ),
        ),
        namespace=_needed(environment, "TONNAGE_NAMESPACE", "the release's namespace"),
        lease=environment.get("TONNAGE_LEASE", "tonnage-operator"),
        identity=environment.get("TONNAGE_IDENTITY") or f"{socket.gethostname()}-{os.getpid()}",
        health_port=int(port),
        log_level=environment.get("TONNAGE_LOG_LEVEL", "INFO").upper(),
        watched=_namespaces(environment.get("TONNAGE_WATCH_NAMESPACES", "")),
        reads_nodes=_flag(environment, "TONNAGE_READ_NODES", value="rbac.nodes"),
        offer=_offer(environment.get("TONNAGE_INVENTORY", "")),
        learned=environment.get("TONNAGE_LEARNED", ""),
        trusted=_trusted(environment),
    )


def _needed(environment: Mapping[str, str], name: str, value: str) -> str:
    text = environment.get(name, "")
    if not text:
        raise ConfigError(f"{name} is not set: the chart sets it from {value}")
    return text


def _trusted(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The repository of the workers that come with the installation, and others."""
    own = repository_of(environment.get("TONNAGE_WORKER_IMAGE", ""))
    # without a tag, as the schema of the chart's value learning.trustedImages wants them
    others = (name.strip() for name in environment.get("TONNAGE_TRUSTED_IMAGES", "").split(","))
    return tuple(dict.fromkeys(filter(None, (own, *others))))


def _namespaces(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))
    for name in names:
        # a pattern would need the right to list namespaces
        if not NAMESPACE.fullmatch(name):
            raise ConfigError(
                f"TONNAGE_WATCH_NAMESPACES holds {name!r}, which is no namespace's name: "
                "the chart sets it from watchNamespaces"
            )
    return names


def _offer(text: str) -> Offer:
    """What the chart's value `inventory` says: JSON with `pools` and `prices`, or one of them."""
    try:
        values = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(
            f"TONNAGE_INVENTORY is no JSON, {error}: the chart sets it from inventory"
        ) from None
    if not isinstance(values, dict):
        raise ConfigError("inventory must be a mapping with pools and prices")
    stated = read_static(values) if values.get("pools") else None
    if isinstance(stated, tuple):
        raise ConfigError("; ".join(stated))
    return Offer(prices=_prices(values.get("prices") or {}), inventory=stated)


def _prices(values: Any) -> dict[str, Decimal]:
    if not isinstance(values, dict):
        raise ConfigError("inventory.prices must be a mapping of products to prices")
    prices = {}
    for name, value in values.items():
        try:
            price = Decimal(str(value))
        except InvalidOperation:
            price = Decimal("NaN")
        if not price.is_finite() or price < 0:
            raise ConfigError(
                f"inventory.prices.{name} is {value!r}: it must be what one device costs an hour"
            )
        prices[str(name)] = price
    return prices


def _flag(environment: Mapping[str, str], name: str, *, value: str) -> bool:
    text = environment.get(name, "true")
    if text not in ("true", "false"):
        raise ConfigError(f"{name} is {text!r}: it must be true or false; the chart sets it from {value}")
    return text == "true"
