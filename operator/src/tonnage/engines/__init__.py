"""What an engine version does: defaults, KV dtypes it computes rightly, block sizes, overheads; data with
sources.

`overheads` is not imported here: `tonnage fit`, which starts in a tenth of a second, needs none of it.
"""

from tonnage.engines.gpu import BatchTier, GpuRules
from tonnage.engines.kernels import (
    CPU_ATTENTION,
    CPU_LATENT,
    SPARSE_INDEXER,
    BlockSize,
    Kernel,
    Need,
    NoKernelError,
    choose_kernel,
    kernel_named,
)
from tonnage.engines.kv_dtypes import (
    KV_DTYPES,
    KV_ELEMENT_BYTES,
    LATENT_STATE_BYTES,
    element_bytes,
    head_state_bytes,
    is_quantized,
)
from tonnage.engines.rules import EngineRules
from tonnage.engines.versions import UnknownEngineVersionError, gpu_rules_for, release_of, rules_for

__all__ = [
    "CPU_ATTENTION",
    "CPU_LATENT",
    "KV_DTYPES",
    "KV_ELEMENT_BYTES",
    "LATENT_STATE_BYTES",
    "SPARSE_INDEXER",
    "BatchTier",
    "BlockSize",
    "EngineRules",
    "GpuRules",
    "Kernel",
    "Need",
    "NoKernelError",
    "UnknownEngineVersionError",
    "choose_kernel",
    "element_bytes",
    "gpu_rules_for",
    "head_state_bytes",
    "is_quantized",
    "kernel_named",
    "release_of",
    "rules_for",
]
