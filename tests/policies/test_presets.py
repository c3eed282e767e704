"""The two presets of the older plan: its names, its defaults, and the policies of today behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs import NormalizationMode, PreTrainedConfig

from policy_workshop import Workshop, make_foundation


def default(kind: str, **changes: Any) -> Any:
    return PreTrainedConfig.get_choice_class(kind)(device="cpu", **changes)


def test_hlrp_vla_has_the_plans_defaults() -> None:
    config = default("hlrp_vla")
    expected = {
        "vla_model_name": "nvidia/Cosmos-Reason2-2B",
        "vla_checkpoint_path": None,
        "torch_dtype": "bf16",
        "dtype": "bfloat16",
        "attn_implementation": "sdpa",
        "n_obs_steps": 1,
        "chunk_size": 1,
        "n_action_steps": 1,
        "codebook_size": None,  # the plan has the numbers of one LAQ; today they are read from the LAQ
        "code_seq_len": None,
        "action_start_token": "<ACTION>",
        "action_end_token": "</ACTION>",
        "action_token_fmt": "<ACT_{i}>",
        "laq_checkpoint_path": "",
        "laq_decoder_type": "learned",
        "decoder": "laq",
        "image_size": (224, 224),
        "max_state_dim": 32,
        "max_action_dim": 32,
        "freeze_vla_backbone": False,
        "freeze_laq_decoder": True,
        "optimizer_lr": 1e-5,
        "optimizer_weight_decay": 0.01,
        "optimizer_betas": (0.9, 0.999),
        "optimizer_eps": 1e-8,
        "optimizer_grad_clip_norm": 1.0,
        "use_scheduler": True,
        "scheduler_warmup_steps": 1000,
        "scheduler_decay_steps": 100_000,
        "scheduler_decay_lr": 1e-6,
    }
    assert {name: getattr(config, name) for name in expected} == expected
    modes = (NormalizationMode.IDENTITY, NormalizationMode.MEAN_STD, NormalizationMode.MEAN_STD)
    assert tuple(config.normalization_mapping[kind] for kind in ("VISUAL", "STATE", "ACTION")) == modes


def test_hlrp_diffusion_has_the_plans_defaults() -> None:
    config = default("hlrp_diffusion")
    expected = {
        "vla_model_name": "nvidia/Cosmos-Reason2-2B",
        "laq_checkpoint_path": "",
        "codebook_size": None,  # the plan has the numbers of one LAQ; today they are read from the LAQ
        "code_seq_len": None,
        "latent_embed_dim": 64,
        "freeze_vla": True,
        "horizon": 16,
        "chunk_size": 16,
        "n_action_steps": 8,
        "noise_scheduler_type": "DDPM",
        "expert": "diffusion",
    }
    assert {name: getattr(config, name) for name in expected} == expected
    assert config.normalization_mapping["ACTION"] is NormalizationMode.MIN_MAX


@pytest.mark.parametrize("kind", ["hlrp_vla", "hlrp_diffusion"])
def test_a_saved_configuration_reads_back_the_same(kind: str, tmp_path: Path) -> None:
    config = default(kind, torch_dtype="fp32")
    config._save_pretrained(tmp_path)
    again = PreTrainedConfig.from_pretrained(tmp_path)
    assert (again.type, again.dtype, again.chunk_size) == (kind, "float32", config.chunk_size)
    assert again == config


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("hlrp_vla", {"laq_decoder_type": "magic"}, "laq_decoder_type must be one of learned, codebook_lookup"),
        ("hlrp_vla", {"torch_dtype": "bfloat16"}, "torch_dtype must be one of bf16, fp16, fp32"),
        ("hlrp_vla", {"dtype": "float32"}, "dtype=float32 and --policy.torch_dtype=bf16 differ"),
        ("hlrp_diffusion", {"chunk_size": 8}, "chunk_size=8 and --policy.horizon=16 differ"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(kind: str, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        default(kind, **wrong)


def test_too_many_action_dimensions_are_refused(workshop: Workshop) -> None:
    with pytest.raises(ValueError, match="the action has 4 values, more than max_action_dim 3"):
        workshop.policy("hlrp_vla", max_action_dim=3)


def test_without_a_scheduler_there_is_none() -> None:
    assert default("hlrp_vla", use_scheduler=False).get_scheduler_preset() is None
    assert default("hlrp_vla").get_scheduler_preset() is not None


def test_codes_are_looked_up_and_mapped_linearly(workshop: Workshop) -> None:
    decoder = workshop.policy("hlrp_vla", laq_decoder_type="codebook_lookup").decoder
    assert [type(layer) for layer in decoder.head.layers] == [torch.nn.Linear]


def test_the_learned_decoder_is_the_laqs_and_names_it_when_it_is_missing(workshop: Workshop) -> None:
    policy = workshop.policy("hlrp_vla", laq_decoder_type="learned", laq_checkpoint_path=str(workshop.laq))
    assert not any(p.requires_grad for p in policy.decoder.trunk.parameters())
    with pytest.raises(ValueError, match="name it with --policy"):
        workshop.policy("hlrp_vla", laq_decoder_type="learned")


def test_its_action_tokens_are_spelled_as_asked(workshop: Workshop) -> None:
    settings = {"vla_checkpoint_path": None, "action_token_fmt": "<MOVE_{i}>"}
    policy = workshop.policy("hlrp_vla", **settings)
    assert "<MOVE_3>" in policy.backend.processor.tokenizer.get_vocab()
    with pytest.raises(ValueError, match=r"policy\.tokens=.*MOVE.*differs from"):
        workshop.policy("hlrp_vla", action_token_fmt="<MOVE_{i}>")


def test_a_preset_can_use_the_other_backend(workshop: Workshop, tmp_path: Path) -> None:
    assert workshop.policy("hlrp_vla", vla_checkpoint_path=None, vla_backend="smol_latent_head").backend is not None
    foundation = make_foundation(
        tmp_path / "smol", fingerprint=workshop.labels.metadata.laq_fingerprint, backend="smol_latent_head"
    )
    policy = workshop.policy("hlrp_diffusion", vla_checkpoint_path=str(foundation))
    assert policy.backend.backend_type == "smol_latent_head"
