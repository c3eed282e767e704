"""Quantizers: from one vector per code slot to one discrete code per slot. All kinds have the same interface."""

from __future__ import annotations

from hlrp.laq.quantizers.base import Quantized, Quantizer
from hlrp.laq.quantizers.continuous import ContinuousBottleneck
from hlrp.laq.quantizers.fsq import FiniteScalarQuantizer
from hlrp.laq.quantizers.nsvq import NoiseSubstitutionQuantizer
from hlrp.laq.quantizers.rvq import ResidualVectorQuantizer
from hlrp.laq.quantizers.simvq import LinearCodebookQuantizer
from hlrp.laq.quantizers.vq import VectorQuantizer

__all__ = ["QUANTIZERS", "Quantized", "Quantizer"]

QUANTIZERS: dict[str, type[Quantizer]] = {
    "fsq": FiniteScalarQuantizer,
    "nsvq": NoiseSubstitutionQuantizer,
    "vq": VectorQuantizer,
    "simvq": LinearCodebookQuantizer,
    "rvq": ResidualVectorQuantizer,
    "continuous": ContinuousBottleneck,
}
"""Quantizer class by its name in `LAQConfig.quantizer`."""
