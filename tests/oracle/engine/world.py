"""Ranks without processes: torch's "fake" process groups, of which this process is one rank."""

from __future__ import annotations

import sys
import types
from typing import Any


def join(*, tensor: int, pipeline: int, stage: int) -> None:
    """Become the first rank of a stage."""
    import torch.distributed
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from vllm.distributed import parallel_state
    from vllm.distributed.device_communicators import shm_broadcast

    world, rank = tensor * pipeline, stage * tensor
    torch.distributed.init_process_group(backend="fake", store=FakeStore(), rank=rank, world_size=world)
    _make_groups_fake()
    parallel_state._node_count = lambda _: 1
    shm_broadcast.MessageQueue.create_from_process_group = staticmethod(lambda *_, **__: None)
    _communicate_with_nobody(world)
    parallel_state.init_distributed_environment(world_size=world, rank=rank, local_rank=0, backend="fake")
    parallel_state.initialize_model_parallel(tensor, pipeline, 1, 1, backend="fake")


def _make_groups_fake() -> None:
    import torch.distributed

    make, known = torch.distributed.new_group, {"group_desc", "pg_options", "use_local_synchronization"}

    def new_group(ranks: Any = None, *_: Any, **options: Any) -> Any:
        kept = {name: value for name, value in options.items() if name in known}
        return make(ranks, backend="fake", **kept)

    torch.distributed.new_group = new_group


def _communicate_with_nobody(world: int) -> None:
    from vllm.platforms import current_platform

    class Communicator:
        def __init__(self, *_: Any, **__: Any) -> None:
            self.world_size, self.disabled = world, True

        def __getattr__(self, name: str) -> None:
            return None

    module = types.ModuleType("oracle_communicator")
    module.__dict__["Communicator"] = Communicator
    sys.modules[module.__name__] = module
    type(current_platform).get_device_communicator_cls = classmethod(
        lambda _: f"{module.__name__}.Communicator"
    )
