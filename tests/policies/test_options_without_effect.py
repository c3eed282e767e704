"""Options that would have no effect beside others are refused, not ignored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lerobot.policies.rtc.configuration_rtc import RTCConfig

from policy_workshop import Workshop, make_foundation

ONLINE = {"latent_targets": "online", "laq_checkpoint_path": "laq", "teacher_offsets": (4,)}
DIRECT, LATENT = "hlrp_action_expert_direct", "hlrp_action_expert_latent"


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (LATENT, {"latent_conditioning": False, "predicted_codes": 0.5}, "predicted_codes=0.5 has no effect"),
        (LATENT, {"latent_conditioning": False, "replan_every": 2}, "replan_every=2 has no effect"),
        (
            LATENT,
            {"latent_conditioning": False, "latent_labels_path": "labels"},
            "latent_labels_path=labels has no eff",
        ),
        (LATENT, {"expert_width": 64}, "expert_width=64 has no effect with the diffusion expert"),
        (LATENT, {"expert": "flow", "down_dims": (8, 16)}, r"down_dims=\(8, 16\) has no effect with the flow expert"),
        (LATENT, {"use_amp": True}, "use_amp=true has no effect in training"),
        (LATENT, {"vla_checkpoint_path": None, "freeze_vla": True}, "a VLA that never learned codes"),
        ("hlrp_vla_direct", {"vla_checkpoint_path": None, "latent_loss_weight": 0.0}, "a VLA that never learned codes"),
        ("hlrp_diffusion", {"vla_checkpoint_path": None, "freeze_vla": True}, "a VLA that never learned codes"),
        (DIRECT, {"latent_labels_path": "labels"}, "latent_labels_path=labels has no effect"),
        (LATENT, {"latent_conditioning": False, **ONLINE}, "latent_targets=online has no effect"),
        (
            LATENT,
            {"expert": "diffusion", "rtc_config": RTCConfig()},
            "rtc_config has no effect with the diffusion",
        ),
        (DIRECT, {"latent_loss_weight": 1.0, "freeze_vla": True}, "freeze_vla=true leaves as it is"),
        (DIRECT, ONLINE, "labels that nothing learns from while latent_loss_weight is 0"),
        ("hlrp_vla_direct", {"freeze_laq_decoder": False}, "freeze_laq_decoder=false is for --policy.decoder=laq"),
        ("hlrp_vla_direct", {"freeze_vla": True, "freeze_decoder": True}, "leave nothing to train"),
        ("hlrp_vla_direct", {"optimizer_lr_action": 1e-3, "freeze_decoder": True}, "lr_action=0.001 has no effect"),
        (LATENT, {"optimizer_lr_action": 1e-3, "action_loss_weight": 0.0}, "lr_action=0.001 has no effect"),
        ("hlrp_vla_direct", {"teacher_cameras": ["a"]}, "teacher_cameras are for --policy.latent_targets=online"),
        ("hlrp_vla_direct", {"teacher_cameras": ["a", "a"], **ONLINE}, "teacher_cameras names a camera twice"),
        ("hlrp_vla_direct", {"vla_cameras": ["a", "b", "a"]}, "vla_cameras names a camera twice"),
        ("hlrp_vla_direct", {"latent_labels_path": "labels", **ONLINE}, "latent_labels_path=labels is not read with"),
        ("hlrp_vla", {"laq_decoder_type": "learned", "decoder": "mlp"}, "decoder=mlp contradicts .*means laq"),
        ("hlrp_vla", {"decoder_layers": 4}, "decoder_layers=4 contradicts .*laq_decoder_type=codebook_lookup"),
    ],
)
def test_an_option_without_effect_is_refused(
    workshop: Workshop, kind: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        workshop.policy(kind, **settings)


def test_a_default_of_a_preset_without_effect_is_accepted(workshop: Workshop) -> None:
    assert workshop.policy("hlrp_vla", freeze_decoder=True).config.optimizer_lr_action is not None


def test_a_spelling_of_tokens_is_refused_where_the_vla_has_none(workshop: Workshop, tmp_path: Path) -> None:
    spelled = {"action_token_fmt": "<MOVE_{i}>"}
    with pytest.raises(ValueError, match="a smol_latent_head has no tokens; leave out the options that set them"):
        workshop.policy("hlrp_vla", vla_checkpoint_path=None, vla_backend="smol_latent_head", **spelled)
    foundation = make_foundation(
        tmp_path / "smol", fingerprint=workshop.labels.metadata.laq_fingerprint, backend="smol_latent_head"
    )
    with pytest.raises(ValueError, match=r"the smol_latent_head in .* has no tokens"):
        workshop.policy("hlrp_vla", vla_checkpoint_path=str(foundation), **spelled)
