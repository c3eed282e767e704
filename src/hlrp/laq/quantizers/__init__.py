"""Quantizers: from one vector per code slot to one discrete code per slot. All kinds have the same interface."""

from __future__ import annotations

from hlrp.laq.config import QUANTIZERS
from hlrp.laq.quantizers.base import Quantized, Quantizer
from hlrp.runtime.class_paths import load_class

__all__ = ["Quantized", "Quantizer", "quantizer_class"]


def quantizer_class(name: str) -> type[Quantizer]:
    """Class of the quantizer that `LAQConfig.quantizer` calls `name`.

    Raises:
        TypeError: If the class that is registered under `name` is no `Quantizer`.
    """
    return load_class(QUANTIZERS[name], Quantizer)
