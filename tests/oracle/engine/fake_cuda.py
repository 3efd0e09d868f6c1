"""A CUDA platform without a GPU: vLLM asks it for a capability, a name and a size, and believes it.

Faked: those three; that kernels' packages are installed and their CUDA extensions there; FlashAttention's
versions as in vLLM's CUDA wheel; Triton's driver; streams and events. Nothing is ever computed.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any, ClassVar

from oracle.engine.case import Card

_EXTENSIONS = ("vllm._C_stable_libtorch", "vllm._moe_C_stable_libtorch")
_KERNEL_PACKAGES = ("flashinfer", "cutlass", "torchvision")
_NAMESPACES = frozenset(
    {
        "_C",
        "_moe_C",
        "_C_cache_ops",
        "_C_custom_ar",
        "_qutlass_C",
        "_C_stable_libtorch",
        "_vllm_fa2_C",
        "_vllm_fa3_C",
    }
)
_ASKED_AT_IMPORT = frozenset(
    {"cutlass_mla_get_workspace_size", "get_cutlass_moe_mm_data", "is_sm90_bf16x3_supported"}
)
_PROCESSORS = 132
_SHARED_MEMORY = 232_448


class Shown:
    """The card that is shown; the capability is fixed when the platform is made."""

    card: ClassVar[Card]


def install(card: Card) -> None:
    """Make vLLM's platform one with this card. Call it before anything of vLLM is imported."""
    Shown.card = card
    os.environ.pop("VLLM_TARGET_DEVICE", None)
    for name in _EXTENSIONS:
        sys.modules.setdefault(name, types.ModuleType(name))
    _stand_in_for_flash_attention(card.compute_capability)
    _stand_in_for_operators()
    for name in _KERNEL_PACKAGES:
        if importlib.util.find_spec(name) is None:
            sys.meta_path.insert(0, _AnyModule(name))
    _fake_torch()
    _fake_platform()
    _fake_triton()
    _fake_libraries()


def after_import() -> None:
    """From now on every operator is there, and CUDA's bindings: what is imported before tells those that are
    not."""
    import vllm._custom_ops  # noqa: F401 - registers its fakes beside the operators that there are

    _Operators.all_there = True
    sys.meta_path.insert(0, _AnyModule("cuda"))


def _fake_libraries() -> None:
    """Libraries of kernels that look for a GPU or the network."""
    from vllm.utils import deep_gemm, flashinfer, import_utils

    blackwell = Shown.card.compute_capability[0] == 10
    flashinfer.supports_trtllm_attention = lambda *_, **__: blackwell
    flashinfer.has_flashinfer = lambda: True
    flashinfer.has_nvidia_artifactory = lambda: True
    flashinfer.has_flashinfer_sm90_nope_mla = lambda *_, **__: False
    import_utils.has_deep_gemm = lambda: True
    deep_gemm.has_deep_gemm = lambda: True


def on_meta() -> Any:
    """A mode in which tensors that a model makes on a card are made without storage."""
    from torch.overrides import TorchFunctionMode

    class ToMeta(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, function: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
            named = dict(kwargs or {})
            device = named.get("device")
            if isinstance(device, int) or str(device).startswith("cuda"):
                named["device"] = "meta"
            if getattr(function, "__name__", "") in {"to", "cuda"}:
                args = tuple("meta" if str(each).startswith("cuda") else each for each in args)
            return function(*args, **named)

    return ToMeta()


def _fake_platform() -> None:
    import vllm.platforms
    from vllm.platforms.cuda import NonNvmlCudaPlatform
    from vllm.platforms.interface import DeviceCapability

    capability = DeviceCapability(*Shown.card.compute_capability)
    answers: dict[str, Any] = {
        "get_device_capability": lambda: capability,
        "get_device_name": lambda: Shown.card.name,
        "get_device_total_memory": lambda: Shown.card.memory_bytes,
        "get_device_uuid": lambda: "GPU-0",
        "get_current_memory_usage": lambda: 0,
        "get_cuda_runtime_major": lambda: 13,
        "num_compute_units": lambda: _PROCESSORS,
        "is_fully_connected": lambda: True,
        "is_integrated_gpu": lambda: False,
        "is_pin_memory_available": lambda: False,
        "import_kernels": lambda: None,
    }
    methods = {
        name: classmethod(lambda _cls, *_, answer=answer, **__: answer()) for name, answer in answers.items()
    }
    platform = type("NonNvmlCudaPlatform", (NonNvmlCudaPlatform,), methods)
    vllm.platforms._current_platform = platform()
    vllm.platforms.vllm_version_matches_substr = lambda text: text != "cpu"


def _fake_torch() -> None:
    import torch

    capability = Shown.card.compute_capability
    replaced: dict[str, Any] = {
        "device_count": lambda: 64,
        "current_device": lambda: 0,
        "is_available": lambda: True,
        "get_device_capability": lambda *_: capability,
        "get_device_name": lambda *_: Shown.card.name,
        "get_device_properties": lambda *_: _properties(),
        "set_device": lambda *_: None,
        "empty_cache": lambda: None,
        "synchronize": lambda *_: None,
        "Stream": _Stream,
        "Event": _Stream,
        "current_stream": lambda *_: _Stream(),
    }
    for name, value in replaced.items():
        setattr(torch.cuda, name, value)
    accelerator: dict[str, Any] = {
        "current_device_index": lambda *_: 0,
        "device_count": lambda *_: 64,
        "is_available": lambda *_: True,
        "current_accelerator": lambda *_, **__: torch.device("cuda"),
    }
    for name, value in accelerator.items():
        setattr(torch.accelerator, name, value)


def _properties() -> Any:
    major, minor = Shown.card.compute_capability
    return types.SimpleNamespace(
        name=Shown.card.name,
        total_memory=Shown.card.memory_bytes,
        multi_processor_count=_PROCESSORS,
        major=major,
        minor=minor,
        shared_memory_per_block_optin=_SHARED_MEMORY,
        warp_size=32,
        L2_cache_size=50 * 2**20,
    )


class _Stream:
    """A stream or event on which nothing happens."""

    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        pass

    def wait_stream(self, *_: Any) -> None:
        pass

    def wait_event(self, *_: Any) -> None:
        pass

    def record(self, *_: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def query(self) -> bool:
        return True


def _fake_triton() -> None:
    # With no visible device vLLM takes Triton as it is (triton_utils/importing.py), else it wants a driver.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import vllm.triton_utils

    if not vllm.triton_utils.HAS_TRITON:
        raise RuntimeError("vLLM did not take the installed Triton")
    del os.environ["CUDA_VISIBLE_DEVICES"]
    import torch
    from triton.runtime import driver  # type: ignore[import-not-found]

    major, minor = Shown.card.compute_capability
    target = types.SimpleNamespace(backend="cuda", arch=10 * major + minor, warp_size=32)
    device = {
        "multiprocessor_count": _PROCESSORS,
        "max_shared_mem": _SHARED_MEMORY,
        "max_num_regs": 65_536,
        "warpSize": 32,
    }
    driver.set_active(
        types.SimpleNamespace(
            get_current_target=lambda: target,
            get_current_device=lambda: 0,
            get_active_torch_device=lambda: torch.device("cpu"),
            get_device_interface=lambda: torch.cuda,
            get_benchmarker=lambda: lambda *_, **__: 0,
            utils=types.SimpleNamespace(get_device_properties=lambda _: device),
        )
    )


def _stand_in_for_flash_attention(capability: tuple[int, int]) -> None:
    """vllm.vllm_flash_attn as it answers in the CUDA wheel: version 2 from 8.0 on, 3 on 8.0, 8.7 and 9.0, 4
    on 9, 10 and 11."""
    major = capability[0]
    versions = {
        2: major >= 8,
        3: major == 9 or capability in {(8, 0), (8, 7)},
        4: major in {9, 10, 11},
    }

    def supported(version: int, _device: Any = None, **__: Any) -> bool:
        return versions.get(version, False)

    def reason(version: int, _device: Any = None, **__: Any) -> str | None:
        return None if supported(version) else "not for this compute capability"

    nothing = (
        "flash_attn_varlen_func",
        "get_scheduler_metadata",
        "compile_flash_attn_varlen_func_from_specs",
    )
    package = types.ModuleType("vllm.vllm_flash_attn")
    interface = types.ModuleType("vllm.vllm_flash_attn.flash_attn_interface")
    for module in (package, interface):
        module.__dict__.update(
            is_fa_version_supported=supported,
            fa_version_unsupported_reason=reason,
            FA2_AVAILABLE=True,
            FA3_AVAILABLE=True,
            **dict.fromkeys(nothing, lambda *_, **__: None),
        )
        sys.modules[module.__name__] = module
    package.__dict__.update(__path__=[], flash_attn_interface=interface)


class _Operators:
    """Whether every operator that a CUDA wheel could have is taken for there."""

    all_there = False


def _stand_in_for_operators() -> None:
    """Operators of extensions that the CPU wheel lacks: questions of support are answered with yes."""
    import torch

    namespace = type(torch.ops._C)
    found = namespace.__getattr__

    def attribute(self: Any, name: str) -> Any:
        try:
            return found(self, name)
        except AttributeError:
            asked = "supports" in name or "supported" in name or name in _ASKED_AT_IMPORT
            if self.name in _NAMESPACES and not name.startswith("__") and (asked or _Operators.all_there):
                return _Operator()
            raise

    namespace.__getattr__ = attribute


class _Operator:
    def __call__(self, *_: Any, **__: Any) -> bool:
        return True

    def __getattr__(self, name: str) -> _Operator:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


class _Anything:
    """Stands for whatever is imported from a package of kernels; as a decorator it changes nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else _Anything()

    def __getattr__(self, name: str) -> _Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


class _AnyClass(type):
    def __getattr__(cls, name: str) -> _Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()


class _AnyModule(MetaPathFinder, Loader):
    """Finds every module of a package that is not installed."""

    def __init__(self, package: str) -> None:
        self._package = package

    def find_spec(self, fullname: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != self._package:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return _AnyClass(name, (_Anything,), {}) if name[0].isupper() else _Anything()

        module = types.ModuleType(spec.name)
        module.__dict__.update(__path__=[], __version__="0.6.99", __getattr__=attribute)
        return module

    def exec_module(self, _module: types.ModuleType) -> None:
        pass
