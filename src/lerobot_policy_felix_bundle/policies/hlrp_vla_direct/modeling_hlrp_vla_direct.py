"""`hlrp_vla_direct`: the foundation VLA predicts latent codes, and a decoder maps them to a chunk of actions."""

from pathlib import Path
from typing import Any, cast

from jaxtyping import Float, Int
from torch import Tensor

from hlrp.experts.code_decoder import CodeToActionDecoder
from hlrp.experts.laq_code_decoder import LAQCodeDecoder
from hlrp.foundation.checkpoint import ASSETS_DIR
from hlrp.laq.checkpoint import load_laq
from hlrp.laq.config import LAQConfig
from hlrp.laq.model import description
from hlrp.storage.artefacts import read_json, reading
from hlrp.storage.files import write_json
from hlrp.storage.plain_values import from_plain
from hlrp.training.evaluation_mode import inference

from ..common.geometry import settle_laq
from ..common.label_table import LabelTable
from ..common.labels import batch_labels
from ..common.modeling import HLRPPolicy, training_step
from ..common.observations import camera_images
from ..common.online_teacher import laq_cameras
from .configuration_hlrp_vla_direct import HLRPVLADirectConfig

_LAQ_DECODER_FILE = "laq_decoder.json"


class HLRPVLADirectPolicy(HLRPPolicy):
    """Foundation VLA with a decoder from codes to actions; both are trained, or only one of them."""

    config_class = HLRPVLADirectConfig  # pyright: ignore[reportAssignmentType]
    config: HLRPVLADirectConfig
    name = "hlrp_vla_direct"  # pyright: ignore[reportAssignmentType]
    action_modules = ("decoder",)

    def __init__(self, config: HLRPVLADirectConfig, *args: Any, **kwargs: Any) -> None:
        """Build the policy; see `HLRPPolicy`."""
        super().__init__(config, *args, **kwargs)

    def _build_head(self, dataset_meta: Any | None) -> None:
        config = self.config
        head: dict[str, Any] = {
            "chunk_size": self.chunk_size,
            "action_dim": self.action_dim,
            "state_dim": config.state_dim,
            "hidden_dim": config.decoder_hidden_dim,
            "layers": config.decoder_layers,
        }
        self.decoder = self._mlp_decoder(head) if config.decoder == "mlp" else self._laq_decoder(head)
        if config.freeze_decoder:
            self.decoder.requires_grad_(False)

    def _mlp_decoder(self, head: dict[str, Any]) -> CodeToActionDecoder:
        decoder = CodeToActionDecoder(self.backend.spec, **head)
        if self.labels is not None:
            decoder.codes.use_codebook(self.labels.codebook)
        return decoder

    def _laq_decoder(self, head: dict[str, Any]) -> LAQCodeDecoder:
        """Build a decoder around the LAQ's decoder, with weights of the LAQ; a saved policy loads its weights later."""
        config = self.config
        if self._checkpoint_dir is not None:
            if self._saved.get("decoder", "laq") != "laq":
                raise ValueError(
                    f"the policy in {self._checkpoint_dir} has no decoder of a LAQ; leave out --policy.decoder=laq, or "
                    f"start a new policy with it and --policy.vla_checkpoint_path={self._checkpoint_dir}"
                )
            path = self._checkpoint_dir / ASSETS_DIR / _LAQ_DECODER_FILE
            saved = read_json(path)
            with reading(path):
                cameras = from_plain(list[str], saved["cameras"], at="cameras")
                decoder = LAQCodeDecoder(from_plain(LAQConfig, saved["config"], at="config"), **head)
            self._laq_cameras = self._known_cameras(cameras)
        else:
            if not config.laq_checkpoint_path:
                raise ValueError("--policy.decoder=laq needs the quantizer: name it with --policy.laq_checkpoint_path")
            laq = load_laq(config.laq_checkpoint_path)
            settle_laq(config, laq.fingerprint, config.laq_checkpoint_path)
            labelled = self.labels.cameras if isinstance(self.labels, LabelTable) else ()
            self._laq_cameras = laq_cameras(laq, config, labelled=labelled)
            decoder = LAQCodeDecoder.of_laq(laq.model, **head)
        if config.freeze_laq_decoder:
            decoder.trunk.requires_grad_(False)
        return decoder

    def _known_cameras(self, saved: list[str]) -> list[str]:
        """Cameras for the LAQ's decoder: the saved ones, or `teacher_cameras` if this robot has other cameras.

        Raises:
            ValueError: If a camera does not exist, or their number differs from that of the saved ones.
        """
        config = self.config
        if set(saved) <= set(config.image_features):
            return saved
        cameras = config.teacher_cameras or (list(config.image_features) if len(config.image_features) == 1 else [])
        if len(cameras) != len(saved) or not set(cameras) <= set(config.image_features):
            raise ValueError(
                f"the LAQ's decoder looks at {', '.join(saved)}, and this robot has {', '.join(config.image_features)};"
                f" name {len(saved)} of them with --policy.teacher_cameras"
            )
        return cameras

    def _save_pretrained(self, save_directory: Path, **kwargs: Any) -> None:
        super()._save_pretrained(save_directory, **kwargs)
        if self.config.decoder == "laq":
            saved = {"config": description(cast(LAQCodeDecoder, self.decoder).config), "cameras": self._laq_cameras}
            write_json(save_directory / ASSETS_DIR / _LAQ_DECODER_FILE, saved)

    @training_step
    def forward(self, batch: dict[str, Any], reduction: str = "mean") -> tuple[Tensor, dict[str, float]]:
        """Loss on latent codes, plus L1 loss of the actions decoded from the true codes.

        Args:
            batch: A preprocessed training batch; it is not modified.
            reduction: "mean", or "none" for a loss per sample.

        Returns:
            Loss, a scalar or (b,), and its parts as numbers for the log.

        Raises:
            ValueError: If the batch lacks latent labels or instructions, or a pixel is not finite.
        """
        labels = batch_labels(batch, self.labels, self.backend.spec)
        inputs = self._vla_inputs(batch, labels=labels)
        latent = self.backend.loss(inputs) if self.config.learns_codes else None
        target = self._action_target(batch, codes_counted=labels.counted)
        actions = self._decode(labels.targets(), batch)  # `target` leaves out samples without a code
        error = (actions - target.actions).abs().mean(-1)
        return self._total_loss(inputs, reduction=reduction, latent=latent, error=error, target=target)

    @inference
    def predict_action_chunk(self, batch: dict[str, Any], **kwargs: Any) -> Tensor:
        """Actions (b, chunk_size, a) from the current frame; labels and actions in `batch` are ignored."""
        inputs = self._inference_inputs(batch)
        codes = self.backend.predict(inputs).codes
        self._imagine(batch, inputs, codes)
        return self._decode(codes, batch).float()  # float, because the decoder returns bfloat16 under autocast

    def _decode(self, codes: Int[Tensor, "b q"], batch: dict[str, Any]) -> Float[Tensor, "b h a"]:
        state = self._state(batch)
        if self.config.decoder == "mlp":
            return self.decoder(codes, state)
        size = cast(LAQCodeDecoder, self.decoder).config.image_size
        return self.decoder(codes, self._laq_frame(batch, size), state)

    def _laq_frame(self, batch: dict[str, Any], size: tuple[int, int]) -> Float[Tensor, "b m c h w"]:
        """Frame t of the LAQ's cameras, at the LAQ's image size."""
        return camera_images(batch, self._laq_cameras, size)
