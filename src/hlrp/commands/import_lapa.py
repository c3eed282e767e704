"""`hlrp-import-lapa`: LAPA's released quantizer as a checkpoint of ours, to label any dataset with."""

from __future__ import annotations

import logging
from pathlib import Path

from hlrp.laq.lapa.model import LapaQuantizer
from hlrp.laq.lapa.weights import convert, infer_config, load_lapa_weights
from hlrp.options.import_lapa import ImportLapaConfig
from hlrp.report.saving import save_laq
from hlrp.storage.files import refuse_existing

logger = logging.getLogger(__name__)


def import_lapa(config: ImportLapaConfig) -> LapaQuantizer:
    """Convert and write; the quality card is left to `hlrp-inspect-latents`.

    Raises:
        FileNotFoundError: If there are no weights.
        ValueError: If they are not those of a LAPA quantizer, or no offset is given.
        FileExistsError: If the output folder is in use.
    """
    assert config.frame_offset_s is not None, "the options were checked"
    refuse_existing(config.output_dir)
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
