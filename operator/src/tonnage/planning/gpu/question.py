"""What planning on GPUs is asked: a demand, a model, an engine, pools, and what a user and an administrator
say of the hardware."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from tonnage.engines import GpuRules
from tonnage.gpus.cards import accelerator_named
from tonnage.gpus.inventory import Pool, Sharing
from tonnage.planning.adapters import Adapters
from tonnage.planning.budget import share_of
from tonnage.planning.demand import Wanted, stored_dtype
from tonnage.planning.residuals import NOTHING_LEARNED, Residuals

AS_SHIPPED: Final = "None"
"""The value of `weights.quantization` that leaves weights as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a user allows: `products` by any of their names (`names_of`), () for all; None leaves a figure
    to the planner.

    `quantization` is `weights.quantization`, None for Auto.
    """

    products: tuple[str, ...] = ()
    tensor_parallel: int | None = None
    pipeline_parallel: int | None = None
    max_gpus: int | None = None
    quantization: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuQuestion(Wanted):
    """All that planning on GPUs looks at. `prices` are for one device and hour, by a pool's or a product's
    name (`names_of`); pools without one come after those that have one. `withheld_bytes` of each device are
    kept free beyond what the laws ask for. `adapters` are held beside the weights, and `learned` is what
    starts have taught of the laws."""

    engine: GpuRules
    pools: tuple[Pool, ...]
    hardware: Hardware = Hardware()
    prices: Mapping[str, Decimal] = field(default_factory=dict)
    withheld_bytes: int = 0
    adapters: Adapters | None = None
    learned: Residuals = NOTHING_LEARNED

    @property
    def dtype(self) -> str | None:
        """The dtype to ask the engine for; None where it reads it from the config itself."""
        if self.model.shape.dtype is not None:
            return None
        return "float16" if stored_dtype(self.model) == "float16" else None

    def price_of(self, pool: Pool) -> Decimal | None:
        """The price of one device of a pool for an hour, None where none is stated."""
        return next((self.prices[name] for name in names_of(pool) if name in self.prices), None)


def sorted_pools(pools: Iterable[Pool]) -> tuple[Pool, ...]:
    """Pools in an order that their input's does not change."""
    return tuple(sorted(pools, key=lambda pool: pool.name))


def names_of(pool: Pool) -> tuple[str, ...]:
    """What users call a pool: by its own name, the product's as nodes label it, and the catalogue's."""
    known = accelerator_named(pool.product)
    return (pool.name, pool.product, *(() if known is None else (known.name, known.product)))


def usable_bytes(pool: Pool) -> int:
    """What one replica may use of a device: its part where clients take turns and all see the whole
    device."""
    if pool.sharing is Sharing.TIME_SLICING:
        return share_of(pool.memory_bytes, clients=pool.clients)
    return pool.memory_bytes


def whole_bytes(pool: Pool) -> int:
    """The most that an engine could take for a device's total: under MPS it may see the whole card or its
    part."""
    return pool.memory_bytes * (pool.clients if pool.sharing is Sharing.MPS else 1)
