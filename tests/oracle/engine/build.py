"""From a case to the engine's own config and a whole model without storage: caches by layer, bytes of
weights."""

from __future__ import annotations

import json
import os
import pickle
import sys
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from oracle.engine import world
from oracle.engine.case import Case

_LONGEST_ERROR: Final = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One pipeline stage: cache specs by layer and bytes of one rank's parameters."""

    specs: dict[str, Any]
    weight_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The engine's config as the first stage has it, what its layers compute with, and all stages.

    `kv_dtype_served`: every attention layer's backend says that it serves the KV dtype of that layer, which
    the engine asks of CUDA's backends only.
    """

    config: Any
    backends: tuple[Any, ...]
    kv_dtype_served: bool
    stages: tuple[Stage, ...]


class StageError(RuntimeError):
    """A stage could not be built; the text is the engine's own error."""


def engine_config(case: Case) -> Any:
    """What the engine makes of its arguments. Raises its errors."""
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.models import registry
    from vllm.usage.usage_lib import UsageContext

    # Models are inspected in this process, which keeps the platform.
    registry._run_in_subprocess = lambda inspect: inspect()
    arguments = EngineArgs(
        model=_directory(case),
        skip_tokenizer_init=True,
        load_format="dummy",
        kv_cache_memory_bytes=case.kv_bytes,
        distributed_executor_backend="mp" if _ranks(case) > 1 else None,
        **case.arguments,
    )
    return arguments.create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)


def build(case: Case, config: Any) -> Built:
    """All stages, one after the other: the first here, every other one in a process of its own. Raises the
    engine's errors."""
    later = [_in_a_process(case, config, stage) for stage in range(1, _sizes(case)[1])]
    first = _build_stage(case, config, 0)
    layers = _caching_layers(config, first.specs)
    return Built(
        config=config,
        backends=tuple(dict.fromkeys(layer.get_attn_backend() for layer in layers)),
        kv_dtype_served=all(_is_served(layer) for layer in layers),
        stages=(first, *later),
    )


def _directory(case: Case) -> str:
    directory = Path(tempfile.mkdtemp(prefix="oracle-"))
    (directory / "config.json").write_text(json.dumps(case.config))
    if case.hf_quant_config is not None:
        (directory / "hf_quant_config.json").write_text(json.dumps(case.hf_quant_config))
    return str(directory)


def _sizes(case: Case) -> tuple[int, int]:
    arguments = case.arguments
    return arguments.get("tensor_parallel_size", 1), arguments.get("pipeline_parallel_size", 1)


def _ranks(case: Case) -> int:
    tensor, pipeline = _sizes(case)
    return tensor * pipeline


def _in_a_process(case: Case, config: Any, stage: int) -> Stage:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "wb") as file:
            try:
                pickle.dump(_build_stage(case, config, stage), file)
            except BaseException as error:
                traceback.print_exc()
                pickle.dump(words_of(error), file)
        sys.stderr.flush()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read()
    os.waitpid(child, 0)
    found = pickle.loads(text) if text else "the process of the stage ended without a word"
    if isinstance(found, Stage):
        return found
    raise StageError(f"stage {stage}: {found}")


def words_of(error: BaseException) -> str:
    """The engine's error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST_ERROR]


def _build_stage(case: Case, config: Any, stage: int) -> Stage:
    from vllm.config import set_current_vllm_config

    tensor, pipeline = _sizes(case)
    with set_current_vllm_config(config):
        world.join(tensor=tensor, pipeline=pipeline, stage=stage)
        model = _model(case, config)
        weights = _weight_bytes(model)
        return Stage(specs=_cache_specs(config), weight_bytes=weights)


def _model(case: Case, config: Any) -> Any:
    import contextlib

    import torch
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.utils.torch_utils import set_default_torch_dtype

    redirected: Any = contextlib.nullcontext()
    if case.card is not None:
        from vllm.v1.worker.workspace import init_workspace_manager

        from oracle.engine.fake_cuda import on_meta

        # Sparse latent attention reserves a workspace while it is built; a real worker has one by then.
        init_workspace_manager(torch.device("meta"))
        redirected = on_meta()
    item = torch.Tensor.item
    # A few models read a number out of a buffer while they are built.
    torch.Tensor.item = lambda tensor: 0.0 if tensor.is_meta else item(tensor)
    with set_default_torch_dtype(config.model_config.dtype), torch.device("meta"), redirected:
        return initialize_model(vllm_config=config, model_config=config.model_config)


def _weight_bytes(model: Any) -> int:
    """Bytes of all parameters, those that modules share once. Where the engine is to quantize a checkpoint
    while it loads (`uses_meta_device`, layers/quantization/online 0.32), its matrices are made as shipped
    and stored in one byte each later."""
    sizes: dict[int, int] = {}
    for module in model.modules():
        online = getattr(getattr(module, "quant_method", None), "uses_meta_device", False)
        for parameter in module.parameters(recurse=False):
            width = parameter.element_size()
            narrowed = online and parameter.dim() > 1 and parameter.is_floating_point()
            sizes[id(parameter)] = parameter.numel() * (1 if narrowed else width)
    return sum(sizes.values())


def _cache_specs(config: Any) -> dict[str, Any]:
    """What `gpu_worker.py` and `v1/engine/core.py` 0.32 do between a model and the sizing of its cache."""
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.utils import get_supported_kv_cache_layouts, resolve_kv_cache_layout
    from vllm.v1.core.single_type_kv_cache_manager import register_all_kvcache_specs
    from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

    current_platform.update_block_size_for_backend(config)
    register_all_kvcache_specs(config)
    specs: dict[str, Any] = get_kv_cache_spec(config)
    backends = dict.fromkeys(layer.get_attn_backend() for layer in _caching_layers(config, specs))
    layouts = [layout.name for layout in get_supported_kv_cache_layouts(list(backends))]
    resolve_kv_cache_layout(config, [layouts], list(specs.values()))
    return specs


def _caching_layers(config: Any, specs: dict[str, Any]) -> list[Any]:
    from vllm.config.vllm import get_layers_from_vllm_config
    from vllm.model_executor.layers.attention_layer_base import AttentionLayerBase

    layers = get_layers_from_vllm_config(config, AttentionLayerBase)
    return [layers[name] for name in specs]


def _is_served(layer: Any) -> bool:
    """Layers without keys and values, and the indexers of sparse attention, have no KV dtype to serve."""
    from vllm.model_executor.layers.attention import Attention, MLAAttention

    if not isinstance(layer, Attention | MLAAttention):
        return True
    return bool(layer.get_attn_backend().supports_kv_cache_dtype(layer.kv_cache_dtype))
