"""Which model does an object mean? What the command line names, what the cluster has read before, or what the
catalogue knows by that name."""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tonnage import catalogue
from tonnage.api.v1alpha1 import Spec
from tonnage.cli.errors import UsageError
from tonnage.cli.model import ModelFiles, read_model, similar
from tonnage.cluster.directory import inspect_directory
from tonnage.models import ConfigError, ModelProfile, ResolvedModel, Weights, parse_config
from tonnage.planning.weights import weight_bytes
from tonnage.rendering.plan import Kept

_STORED: Final = {"bfloat16": ("BF16", 2), "float16": ("F16", 2), "float32": ("F32", 4)}
_UNSEEN: Final = "files-0000000"
"""The revision of a model whose files nobody has seen."""
_SCHEMES: Final = ("pvc://", "hf://")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """A model's profile and where it is from: `origin` is directory, file, catalogue, hub or plan.

    `weights` says how sure their bytes are: `read` from the files, `stated` by an index, or `computed` from
    the config.
    """

    model: ResolvedModel
    origin: str
    source: str
    weights: str

    def seen_as(self, uri: str) -> bool:
        """Were the files seen as the operator would see them? Then their revision is known, and with it the
        hash of a plan, which stands for both."""
        return self.origin == "plan" or (self.origin == "directory" and uri.startswith("pvc://"))

    @property
    def profile(self) -> ModelProfile:
        """What the model needs."""
        return self.model.profile


def choose(names: Sequence[str], *, uri: str, uris: Iterable[str]) -> str | None:
    """What the command line names as the model of `uri`; `uris` are those of all objects.

    Raises UsageError where one name would stand for several models.
    """
    general: str | None = None
    for name in names:
        prefix, equals, rest = name.partition("=")
        if equals and prefix.startswith(_SCHEMES):
            if prefix == uri:
                return rest
        elif general is not None:
            raise UsageError("--model is given twice: write --model URI=MODEL for each of several models")
        else:
            general = name
    named = {name.partition("=")[0] for name in names}
    if general is not None and len({each for each in uris if each not in named}) > 1:
        raise UsageError("the objects have several models: write --model URI=MODEL for each of them")
    return general


def read_named(name: str, spec: Spec) -> Resolved:
    """The model that the command line names. Raises ConfigError."""
    assume = spec.model.assume_full_attention
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        model = inspect_directory(Path(path), assume_full_attention=assume)
        return Resolved(model=model, origin="directory", source=path, weights="read")
    return _from_config(read_model(path if os.path.isfile(path) else name), assume=assume)


def find_kept(before: Iterable[Kept], *, source: str) -> Resolved | None:
    """The model as it was read in the cluster before, for a plan of the same files."""
    for kept in before:
        if kept.source == source:
            model = kept.resolved()
            if model is not None:
                return Resolved(model=model, origin="plan", source="a plan in the cluster", weights="read")
    return None


def find_known(spec: Spec) -> Resolved:
    """The model of the catalogue with the name that the uri ends in. Raises ConfigError."""
    uri = spec.model.uri
    name = uri.partition("://")[2].strip("/")
    entry = catalogue.find(name) or catalogue.find(name.rpartition("/")[2])
    if entry is None:
        raise ConfigError(
            "ModelUnknown",
            f"what {uri} holds is not known here: name its directory, its config.json or a model of the "
            f"catalogue with --model; {similar(name)}",
        )
    return _from_config(read_model(entry.name), assume=spec.model.assume_full_attention)


def _from_config(files: ModelFiles, *, assume: bool) -> Resolved:
    shape = parse_config(files.config, hf_quant_config=files.hf_quant_config, assume_full_attention=assume)
    stored, width = ("U8", 1) if shape.quantization else _STORED.get(shape.dtype or "", _STORED["bfloat16"])
    total = files.checkpoint_bytes
    if total is None:
        if not shape.weights_known:
            raise ConfigError(
                "WeightsUnknown",
                f"{files.source} does not tell how large the weights are: name a directory with the "
                "*.safetensors files",
            )
        total = weight_bytes(shape, dtype=shape.dtype or "bfloat16", capability=None)[0]
    weights = Weights(bytes_by_dtype=((stored, total),), parameters=total // width)
    return Resolved(
        model=ResolvedModel(
            profile=ModelProfile(shape=shape, weights=weights),
            revision=_UNSEEN,
        ),
        origin=files.origin,
        source=f"{files.name} ({files.source})",
        weights="computed" if files.checkpoint_bytes is None else "stated",
    )


def describe(model: Resolved, *, uri: str) -> Mapping[str, Any]:
    """The machine form."""
    return {
        "uri": uri,
        "architecture": model.profile.shape.architecture,
        "origin": model.origin,
        "source": model.source,
        "weights": model.weights,
        "weights_bytes": model.profile.weights.total_bytes,
    }
