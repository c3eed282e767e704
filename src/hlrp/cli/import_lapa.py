"""`hlrp-import-lapa`: LAPA's released quantizer as a checkpoint of ours, to label any dataset with."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import draccus

from hlrp.cli.common import run_cli
from hlrp.files import refuse_existing
from hlrp.laq.checkpoint import save_laq
from hlrp.laq.lapa.model import LapaQuantizer
from hlrp.laq.lapa.weights import convert, infer_config, load_lapa_weights

logger = logging.getLogger(__name__)


@dataclass
class ImportLapaConfig:
    """Convert the state dict of LAPA's quantizer (arXiv:2410.11758); its sizes are read from its tensors."""

    weights: str = "laq_openx.pt"
    """The file that LAPA released."""
    output_dir: str = "outputs/laq_lapa"
    """Folder of the LAQ checkpoint to write."""
    frame_offset_s: float | None = None
    """Time between the two frames of a clip, in seconds; required, since LAPA counts frames instead of time."""
    num_frames: int = 2
    """Frames of a clip; each consecutive pair gets codes of its own."""
    code_seq_len: int | None = None
    """Code slots of a transition, where the tensors leave a choice: 4 (default) or 16, and 64 (default) or 256."""
    cameras: list[str] = field(default_factory=list)
    """Dataset key of the camera to label; default: whichever the labelling command is given."""


def import_lapa(config: ImportLapaConfig) -> LapaQuantizer:
    """Convert and write; the quality card is left to `hlrp-inspect-latents`.

    Raises:
        FileNotFoundError: If there are no weights.
        ValueError: If they are not those of a LAPA quantizer, or no offset is given.
        FileExistsError: If the output folder is in use.
    """
    if config.frame_offset_s is None:
        raise ValueError(
            "frame_offset_s is missing: give the seconds between the two frames to label; LAPA itself takes frames 30 "
            "apart, which is 1.0 in video of 30 Hz"
        )
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


def main() -> None:
    """Entry point."""
    run_cli(lambda: import_lapa(draccus.parse(ImportLapaConfig)))


if __name__ == "__main__":
    main()
