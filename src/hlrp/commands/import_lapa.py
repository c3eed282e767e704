"""`hlrp-import-lapa`: convert LAPA's released quantizer into a LAQ checkpoint that can label any dataset."""

from __future__ import annotations

import logging
from pathlib import Path

from hlrp.laq.lapa.model import LapaQuantizer
from hlrp.laq.lapa.weights import convert, infer_config, load_lapa_weights
from hlrp.options.import_lapa import ImportLapaConfig
from hlrp.report.saving import save_laq
from hlrp.storage.files import refuse_existing, sole_writer

logger = logging.getLogger(__name__)


def import_lapa(config: ImportLapaConfig) -> LapaQuantizer:
    """Convert LAPA's weights and write the checkpoint, without a quality card (see `hlrp-inspect-latents`).

    Raises:
        FileNotFoundError: If the file `config.weights` does not exist.
        ValueError: If the file does not hold the weights of a LAPA quantizer.
        FileExistsError: If the folder `config.output_dir` exists, or another process is writing it.
    """
    with sole_writer(config.output_dir):
        refuse_existing(config.output_dir)
        return _import(config)


def _import(config: ImportLapaConfig) -> LapaQuantizer:
    assert config.frame_offset_s is not None, "ImportLapaConfig refuses a missing frame_offset_s"
    state = load_lapa_weights(config.weights)
    lapa_config = infer_config(
        state,
        code_seq_len=config.code_seq_len,
        num_frames=config.num_frames,
        frame_offset_s=config.frame_offset_s,
    )
    model = convert(state, lapa_config)
    extra = {"imported_from": Path(config.weights).name}
    save_laq(model, config.output_dir, cameras=config.cameras, quality=None, extra=extra)
    spec, (height, width) = lapa_config.spec, lapa_config.image_size
    print(
        f"{spec.code_seq_len} codes of {spec.codebook_size} for frames of {height}x{width} pixels, "
        f"{spec.frame_offset_s:g} s apart: {config.output_dir}"
    )
    return model
