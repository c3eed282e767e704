"""Compare the codes of an imported LAPA quantizer with those of LAPA's own code, at the size of the released weights.

    python -m benchmarks.lapa_parity --lapa_repo CLONE

Weights are random, since LAPA's are not downloaded here; names, shapes and layout are its own. Codes must be equal; the
vectors before them may differ by rounding.
"""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.laq_throughput import lapa_module
from hlrp.cli.common import read_options, run_cli
from hlrp.laq.lapa.weights import convert, infer_config


@dataclass
class ParityConfig:
    """Compare codes."""

    lapa_repo: Path
    """A git clone of https://github.com/LatentActionPretraining/LAPA, run for the comparison only."""
    clips: int = 8
    seed: int = 0


@torch.no_grad()
def run(config: ParityConfig) -> dict[str, float]:
    """Parameters, clips, and the share of codes that are equal."""
    torch.manual_seed(config.seed)
    with lapa_module(config.lapa_repo) as module, contextlib.redirect_stdout(io.StringIO()):
        lapa = module.LatentActionQuantization(
            dim=1024, quant_dim=32, codebook_size=8, image_size=256, patch_size=32, spatial_depth=8, temporal_depth=8,
            dim_head=64, heads=16, code_seq_len=4,
        ).eval()  # fmt: skip
        state = lapa.state_dict()
        imported = convert(state, infer_config(state, code_seq_len=4, num_frames=2, frame_offset_s=1.0))
        clips = torch.rand(config.clips, 2, 3, 256, 256)
        expected = lapa(clips.transpose(1, 2), return_only_codebook_ids=True).reshape(config.clips, 1, 4)
    found = imported.encode(clips).require_codes()
    return {
        "parameters": sum(p.numel() for p in imported.parameters()),
        "clips": config.clips,
        "different_codes": len(found.unique()),
        "equal": float((found == expected).double().mean()),
    }


if __name__ == "__main__":
    run_cli(lambda: print(json.dumps(run(read_options(ParityConfig)), indent=2)))
