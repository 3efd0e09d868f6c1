"""What could be on a pool: ranks, graphs and batches, and what one such start holds, sized to the byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from tonnage.gpus.inventory import Pool, Sharing
from tonnage.models import ModelShape, Trait
from tonnage.planning.budget import Budget, budget
from tonnage.planning.candidates import MARGIN_BLOCKS
from tonnage.planning.fit import LaidOut, lay_out
from tonnage.planning.gpu.ladder import Step
from tonnage.planning.gpu.question import GpuQuestion, usable_bytes
from tonnage.planning.graphs import captured_sizes
from tonnage.planning.load import load_of
from tonnage.planning.memory import blocks_for, blocks_in, blocks_per_request
from tonnage.planning.residuals import Key, Learned, as_learned
from tonnage.planning.settle import Device, EngineOptions, RefusedError, settle
from tonnage.planning.weights import IndivisibleError, stored_in_fp8, weight_bytes

NULL_BLOCKS: Final = 1
"""vllm/v1/core/block_pool.py 0.32: block 0 is held back."""

MAX_STAGES: Final = 16
OWN_DEVICES: Final = frozenset({Sharing.NONE, Sharing.MIG})
"""Sharings in which what is not free of a device is the engine's own."""
_BATCHES: Final = (8192, 2048, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One thing that could be done: a step of the ladder on ranks of a pool, computing so many tokens at
    once."""

    step: Step
    pool: Pool
    tensor: int
    pipeline: int
    batched_tokens: int

    @property
    def gpus(self) -> int:
        """Devices of one replica."""
        return self.tensor * self.pipeline

    @property
    def nodes(self) -> int:
        """Nodes, and pods, of one replica: one for each stage where one node is too small."""
        return 1 if self.gpus <= self.pool.devices_per_pod else self.pipeline

    @property
    def devices_per_pod(self) -> int:
        """Devices that one pod of the replica gets."""
        return self.gpus // self.nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A choice, sized: how caches are laid out, bytes by purpose, blocks that the workload needs and blocks
    that there are. `starts` is of how many starts the bytes were learned, 0 where they are the laws'."""

    choice: Choice
    laid: LaidOut
    budget: Budget
    needed_blocks: int
    blocks: int
    starts: int = 0

    @property
    def block_bytes(self) -> int:
        """Bytes of one block on the fullest stage."""
        return max(self.laid.layout.stage_bytes)

    @property
    def kv_bytes(self) -> int:
        """The bytes of all blocks, which the engine is told."""
        return self.blocks * self.block_bytes

    @property
    def missing_bytes(self) -> int:
        """How much larger every device would have to be for the workload."""
        return self.needed_blocks * self.block_bytes - self.budget.kv_bytes

    @property
    def captured_sizes(self) -> tuple[int, ...]:
        """Batch sizes of CUDA graphs."""
        return _sizes(self.laid, eager=self.choice.step.eager)


def batches(question: GpuQuestion, pool: Pool) -> tuple[int, ...]:
    """Tokens of one engine step (`--max-num-batched-tokens`) to try on a pool, the most first.

    No more than the engine's default for the card or than all requests together, and not fewer than there are
    sequences, which the engine refuses (vllm/config/scheduler.py 0.32), or than one image has.
    """
    tier = question.engine.batch_tier(memory_bytes=pool.memory_bytes, name=pool.product)
    shape, sequences = question.model.shape, question.demand.concurrency
    least = max(sequences, shape.encoder_tokens if Trait.MULTIMODAL in shape.traits else 0)
    most = sequences * question.context_tokens
    found = {max(min(tokens, most), least) for tokens in _BATCHES if tokens <= tier.batched_tokens}
    return tuple(sorted(found, reverse=True))


def tensor_sizes(question: GpuQuestion, pool: Pool) -> tuple[int, ...]:
    """Tensor parallel sizes to try on one node: powers of two, and all that a node has."""
    hardware, most = question.hardware, pool.devices_per_pod
    if hardware.tensor_parallel is not None:
        return (hardware.tensor_parallel,) if hardware.tensor_parallel <= most else ()
    powers = {2**exponent for exponent in range(most.bit_length())}
    return tuple(sorted(size for size in powers | {most} if 1 <= size <= most))


def single_node_ranks(question: GpuQuestion, pool: Pool) -> tuple[tuple[int, int], ...]:
    """(tensor, pipeline) sizes of replicas that one node holds, fewest devices first.

    Stages within one node only where they were asked for: tensor parallelism needs no second copy of a step's
    work in flight.
    """
    stages = question.hardware.pipeline_parallel or 1
    return tuple(
        (tensor, stages) for tensor in tensor_sizes(question, pool) if tensor * stages <= pool.devices_per_pod
    )


def stage_counts(question: GpuQuestion, pool: Pool, *, tensor: int) -> tuple[int, ...]:
    """Pipeline sizes to try over several nodes, one stage of `tensor` devices on each; none of devices that
    are shared."""
    stated = question.hardware.pipeline_parallel
    if pool.sharing is not Sharing.NONE:
        return ()
    if stated is not None:
        return (stated,) if stated > 1 else ()
    able = sum(node.devices >= tensor for node in pool.nodes)
    return tuple(range(2, min(MAX_STAGES, able) + 1))


def may_spread(question: GpuQuestion, pool: Pool) -> bool:
    """Whether replicas over several nodes are to be tried at all."""
    tensors = tensor_sizes(question, pool)
    return bool(tensors and stage_counts(question, pool, tensor=tensors[0]))


_Refusal = RefusedError | IndivisibleError
Sized = TypeVar("Sized", int, LaidOut)


class Sizer:
    """Sizes choices; what several have in common is worked out once."""

    def __init__(self, question: GpuQuestion) -> None:
        self._question = question
        self._shapes: dict[str, ModelShape] = {"": question.model.shape}
        self._laid: dict[tuple[object, ...], LaidOut | _Refusal] = {}
        self._weights: dict[tuple[object, ...], int | _Refusal] = {}
        self._budgets: dict[tuple[object, ...], Budget] = {}

    def weights(self, choice: Choice) -> int:
        """Bytes of the parameters on the fullest rank. Raises `RefusedError` and `IndivisibleError`."""
        key = (choice.step.weights, choice.pool.compute_capability, choice.tensor, choice.pipeline)
        return _kept(self._weights, key, lambda: self._weigh(choice))

    def _weigh(self, choice: Choice) -> int:
        shape = self._shapes.get(choice.step.weights)
        if shape is None:
            shape = self._shapes[choice.step.weights] = stored_in_fp8(self._question.model.shape)
        settled = settle(
            self._question.model.shape,
            device=_device(choice),
            # What the engine says of a KV dtype is not about the weights.
            options=replace(self._options(choice), kv_dtype="auto"),
            engine_version=self._question.engine.version,
        )
        return max(
            weight_bytes(
                shape,
                dtype=settled.dtype,
                tensor_parallel=choice.tensor,
                pipeline_parallel=choice.pipeline,
                capability=choice.pool.compute_capability,
            )
        )

    def spread_ranks(self, step: Step, pool: Pool) -> tuple[tuple[int, int], ...]:
        """(tensor, pipeline) sizes of replicas over several nodes, each of which gives as many devices as the
        engine can divide the model among."""
        tokens = batches(self._question, pool)[-1]
        for tensor in reversed(tensor_sizes(self._question, pool)):
            alone = Choice(step=step, pool=pool, tensor=tensor, pipeline=1, batched_tokens=tokens)
            try:
                self.weights(alone)
                self.laid(alone)
            except (RefusedError, IndivisibleError):
                continue
            counts = stage_counts(self._question, pool, tensor=tensor)
            return tuple((tensor, count) for count in counts if tensor * count > pool.devices_per_pod)
        return ()

    def laid(self, choice: Choice) -> LaidOut:
        """How the engine lays caches out. Raises `RefusedError`."""
        ranks = (choice.tensor, choice.pipeline, choice.batched_tokens)
        key = (choice.pool.compute_capability, choice.step.kv_dtype, *ranks)
        return _kept(self._laid, key, lambda: self._lay_out(choice))

    def _lay_out(self, choice: Choice) -> LaidOut:
        return lay_out(
            self._question.model.shape,
            device=_device(choice),
            options=self._options(choice),
            engine_version=self._question.engine.version,
        )

    def _options(self, choice: Choice) -> EngineOptions:
        question = self._question
        return EngineOptions(
            tensor_parallel=choice.tensor,
            pipeline_parallel=choice.pipeline,
            dtype=question.dtype,
            kv_dtype=choice.step.kv_dtype,
            context_tokens=question.context_tokens,
            max_num_seqs=question.demand.concurrency,
            max_num_batched_tokens=choice.batched_tokens,
            prefix_caching=question.demand.prefix_caching,
        )

    def size(self, choice: Choice) -> Candidate:
        """The choice, sized. Raises `RefusedError` and `IndivisibleError`."""
        laid = self.laid(choice)
        made, starts = self._as_learned(choice, self._budget(choice, laid))
        layout = laid.layout
        return Candidate(
            choice=choice,
            laid=laid,
            budget=made,
            needed_blocks=self._needed(laid),
            blocks=blocks_in(layout, kv_bytes=made.kv_bytes) if layout.groups else 1,
            starts=starts,
        )

    def _as_learned(self, choice: Choice, law: Budget) -> tuple[Budget, int]:
        """The bytes by what starts have taught, and how many did.

        For models with encoders only where that is less: what those take while they compute is in no law,
        and must find room in the margins (docs/memory.md).
        """
        learned = self._learned(choice)
        found = as_learned(law, learned)
        encodes = Trait.MULTIMODAL in self._question.model.shape.traits
        if learned is None or (encodes and found.kv_bytes > law.kv_bytes):
            return law, 0
        return found, len(learned.starts)

    def _learned(self, choice: Choice) -> Learned | None:
        """What is known of starts like this one, before any code is compiled: each pod compiles its own."""
        if not self._question.learned.learned:
            return None
        key = key_of(
            choice,
            engine_version=self._question.engine.version,
            architecture=self._question.model.shape.architecture,
            compiled=False,
        )
        return None if key is None else self._question.learned.of(key)

    def _budget(self, choice: Choice, laid: LaidOut) -> Budget:
        key = (id(laid), choice.step.weights, choice.step.eager, usable_bytes(choice.pool))
        made = self._budgets.get(key)
        if made is None:
            load = load_of(
                laid,
                weights=self.weights(choice),
                graph_sizes=_sizes(laid, eager=choice.step.eager),
                adapters=self._question.adapters,
            )
            made = self._budgets[key] = budget(
                load,
                total_bytes=usable_bytes(choice.pool),
                withheld_bytes=self._question.withheld_bytes,
            )
        return made

    def _needed(self, laid: LaidOut) -> int:
        """Blocks for one request at the context length or `concurrency` typical ones, and what is held
        back."""
        question, layout = self._question, laid.layout
        longest = blocks_per_request(layout, length_tokens=question.context_tokens)
        typical = blocks_for(
            layout, requests=question.demand.concurrency, length_tokens=question.typical_tokens
        )
        return max(longest, typical) + NULL_BLOCKS + MARGIN_BLOCKS


def _kept(
    known: dict[tuple[object, ...], Sized | _Refusal], key: tuple[object, ...], make: Callable[[], Sized]
) -> Sized:
    """What was made before under this key, or made now; a refusal is kept too."""
    found = known.get(key)
    if found is None:
        try:
            found = make()
        except (RefusedError, IndivisibleError) as error:
            found = error
        known[key] = found
    if isinstance(found, RefusedError | IndivisibleError):
        raise found
    return found


def key_of(choice: Choice, *, engine_version: str, architecture: str, compiled: bool) -> Key | None:
    """What starts of a choice teach each other by; None where they teach nothing: on devices that are shared,
    where others' bytes cannot be told from the engine's own, and in stages, of which each holds another part
    of the model."""
    if choice.pipeline > 1 or choice.pool.sharing not in OWN_DEVICES:
        return None
    return Key(
        engine_version=engine_version,
        product=choice.pool.product,
        architecture=architecture,
        tensor_parallel=choice.tensor,
        graphs=choice.step.graph_mode,
        compiled=compiled,
    )


def _device(choice: Choice) -> Device:
    return Device(compute_capability=choice.pool.compute_capability)


def _sizes(laid: LaidOut, *, eager: bool) -> tuple[int, ...]:
    """The engine's own list, stated so that no default moves it."""
    settled = laid.settled
    if eager:
        return ()
    return captured_sizes(
        sequences=settled.max_num_seqs,
        tokens=settled.max_num_batched_tokens,
        capability=settled.device.compute_capability,
    )
