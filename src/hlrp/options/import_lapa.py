"""Options of `hlrp-import-lapa`."""

from __future__ import annotations

from dataclasses import dataclass, field

from hlrp.runtime.checks import require_numbers


@dataclass
class ImportLapaConfig:
    """Convert the state dict of LAPA's quantizer (arXiv:2410.11758); its sizes are read from its tensors."""

    weights: str = "laq_openx.pt"
    """Path of the file that LAPA released."""
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

    def __post_init__(self) -> None:
        if self.frame_offset_s is None:
            raise ValueError(
                "frame_offset_s is missing: give the seconds between the two frames to label; LAPA itself takes frames "
                "30 apart, which is 1.0 in video of 30 Hz"
            )
        require_numbers(self, "frame_offset_s", above=0)
        require_numbers(self, "num_frames", at_least=2)
        require_numbers(self, "code_seq_len", at_least=1)
