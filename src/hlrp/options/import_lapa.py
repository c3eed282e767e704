"""Options of `hlrp-import-lapa`."""

from __future__ import annotations

from dataclasses import dataclass, field

from hlrp.runtime.checks import require_numbers


@dataclass
class ImportLapaConfig:
    """Convert LAPA's quantizer (arXiv:2410.11758) into a LAQ checkpoint; the layer sizes are read from the weights."""

    weights: str = "laq_openx.pt"
    """Path of LAPA's released state dict."""
    output_dir: str = "outputs/laq_lapa"
    """Folder of the LAQ checkpoint to write."""
    frame_offset_s: float | None = None
    """Time between two frames of a clip, in seconds. Required, since LAPA counts frames and records no frame rate."""
    num_frames: int = 2
    """Number of frames of a clip, at least 2; each pair of consecutive frames gets its own codes."""
    code_seq_len: int | None = None
    """Code slots per transition. The weights often allow two numbers, of which the smaller is the default: 4 or 16, and
    64 or 256."""
    cameras: list[str] = field(default_factory=list)
    """Dataset key of the camera to label, kept in the checkpoint; default: none, so that the labelling command names
    the camera or takes the only one of the dataset."""

    def __post_init__(self) -> None:
        if self.frame_offset_s is None:
            raise ValueError(
                "frame_offset_s is missing: give the seconds between the two frames to label; LAPA itself takes frames "
                "30 apart, which is 1.0 in video of 30 Hz"
            )
        if len(self.cameras) > 1:
            raise ValueError(f"LAPA's quantizer sees one camera, got cameras={self.cameras}; name the one to label")
        require_numbers(self, "frame_offset_s", above=0)
        require_numbers(self, "num_frames", at_least=2)
        require_numbers(self, "code_seq_len", at_least=1)
