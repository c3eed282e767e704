"""The foundation VLA inside a policy: a new one, or one out of a checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from hlrp.foundation.backends import BackendConfig, FoundationBackend, build_backend
from hlrp.foundation.checkpoint import FoundationDescription, load_foundation, rebuild
from hlrp.foundation.lightning_weights import load_lightning_weights
from hlrp.latents import LatentSpec

from .configuration import HLRPConfig

logger = logging.getLogger(__name__)


def new_vla(config: HLRPConfig, spec: LatentSpec | None, *, lightning: Path | str | None) -> FoundationBackend:
    """A VLA to start from.

    Args:
        config: The policy's.
        spec: Codes that the labels hold; None takes the policy's word for it, or the usual ones.
        lightning: A Lightning checkpoint to take the weights from.
    """
    if config.vla_model_name is None and lightning is None:
        logger.warning(
            f"{config.type} starts from the embedded demo-size VLM, untrained; name a real one with "
            "--policy.vla_model_name or a trained one with --policy.vla_checkpoint_path"
        )
    kind = config.vla_backend or BackendConfig.default_choice_name()
    settings = {"model_name": config.vla_model_name, **_run_settings(config), **config.vla_choices()}
    if "tokens" in settings and kind != "qwen3vl_chat":
        raise ValueError(f"a {kind} does not answer in action tokens; leave out the options that spell them")
    if spec is None:
        chosen = {"codebook_size": config.codebook_size, "code_seq_len": config.code_seq_len}
        spec = LatentSpec(**{name: value for name, value in chosen.items() if value is not None})
    backend = build_backend(BackendConfig.get_choice_class(kind).from_dict(settings), spec)
    if lightning is not None:
        load_lightning_weights(backend, lightning)
    return backend


def saved_vla(
    config: HLRPConfig, folder: str, saved: FoundationDescription, *, with_weights: bool
) -> FoundationBackend:
    """The VLA of a foundation checkpoint; of a policy's own without weights, which LeRobot loads.

    Raises:
        ValueError: If the policy asks for another backend, prompt or picture size than it was trained with.
    """
    theirs = {**saved.config, "vla_backend": saved.backend}
    mine = {**config.vla_choices(), "vla_backend": config.vla_backend or saved.backend}
    for name, value in mine.items():
        if name not in theirs:
            raise ValueError(f"the {saved.backend} in {folder} has no {name}; leave out --policy.{name}={value}")
        if theirs[name] != value:
            raise ValueError(
                f"--policy.{name}={value} differs from the {theirs[name]} that {folder} was trained with; leave it "
                f"out, or set --policy.{name}={theirs[name]}"
            )
    if with_weights and config.vla_model_name not in (None, type(config).vla_model_name):
        logger.warning(f"--policy.vla_model_name={config.vla_model_name} is not used: {folder} brings its own model")
    load = load_foundation if with_weights else rebuild
    return load(folder, overrides=_run_settings(config)).backend


def _run_settings(config: HLRPConfig) -> dict[str, Any]:
    """Settings of training and computing, which may change from run to run."""
    return {
        "freeze_backbone": config.freeze_vla_backbone,
        "attn_implementation": config.attn_implementation,
        "dtype": config.dtype,
        "gradient_checkpointing": config.gradient_checkpointing,
        "random_shift_px": config.random_shift_px,
    }
