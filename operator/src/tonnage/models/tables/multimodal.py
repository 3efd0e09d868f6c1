"""Wrappers of a text model: vision and audio encoders, encoder-decoders.

What each model makes of its config is read in vLLM 0.32.0 `model_executor/models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tonnage.models.family import Family

MULTIMODAL: Final[Mapping[str, Family]] = {}
