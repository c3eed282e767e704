"""Build the foundation VLA of a policy, new or from a checkpoint."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path
from typing import Any

from hlrp.foundation.backends import BackendConfig, FoundationBackend, build_backend
from hlrp.foundation.checkpoint import FoundationDescription, load_foundation, rebuild
from hlrp.foundation.lightning_weights import load_lightning_weights
from hlrp.latents import LatentSpec

from .configuration import HLRPConfig

logger = logging.getLogger(__name__)


def new_vla(config: HLRPConfig, spec: LatentSpec | None, *, lightning: Path | str | None) -> FoundationBackend:
    """A new VLA for training, without a foundation checkpoint.

    Args:
        config: Configuration of the policy.
        spec: Geometry of the label codes; None uses the options of the policy and the defaults of `LatentSpec`.
        lightning: Lightning checkpoint with the weights; None keeps the pretrained or random weights.
    """
    if config.vla_model_name is None and lightning is None:
        logger.warning(
            f"{config.type} starts from the embedded demo-size VLM, untrained; name a real one with "
            "--policy.vla_model_name or a trained one with --policy.vla_checkpoint_path"
        )
    settings = {"model_name": config.vla_model_name, **_run_settings(config), **config.vla_choices()}
    chosen = _backend_config(config)
    unknown = sorted(settings.keys() - {field.name for field in fields(chosen)})
    if unknown:
        kind = BackendConfig.get_choice_name(chosen)
        raise ValueError(f"a {kind} has no {', '.join(unknown)}; leave out the options that set them")
    if spec is None:
        codes = {"codebook_size": config.codebook_size, "code_seq_len": config.code_seq_len}
        spec = LatentSpec(**{name: value for name, value in codes.items() if value is not None})
    backend = build_backend(chosen.from_dict(settings), spec)
    if lightning is not None:
        load_lightning_weights(backend, lightning)
    return backend


def saved_vla(
    config: HLRPConfig, folder: str, saved: FoundationDescription, *, with_weights: bool
) -> FoundationBackend:
    """The VLA of a foundation checkpoint or of a saved policy.

    Set `with_weights` to false for a saved policy, whose weights LeRobot loads.

    Raises:
        ValueError: If the policy's options for backend, prompt or image size differ from those of the checkpoint.
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
        logger.warning(f"--policy.vla_model_name={config.vla_model_name} is ignored: the VLA is loaded from {folder}")
    load = load_foundation if with_weights else rebuild
    return load(folder, overrides=_run_settings(config)).backend


def needs_vectors(config: HLRPConfig, saved: FoundationDescription | None) -> bool:
    """Whether training the VLA reads latent vectors beside the codes.

    Args:
        config: Configuration of the policy.
        saved: Description of the checkpoint that the VLA is loaded from; None for a new VLA.
    """
    if saved is None:
        return _backend_config(config)().needs_vectors
    return BackendConfig.get_choice_class(saved.backend).from_dict(saved.config).needs_vectors


def _backend_config(config: HLRPConfig) -> type[BackendConfig]:
    """Class of the options of a new VLA's backend."""
    return BackendConfig.get_choice_class(config.vla_backend or BackendConfig.default_choice_name())


def _run_settings(config: HLRPConfig) -> dict[str, Any]:
    """Settings of training and computing, which may differ from those of a checkpoint."""
    return {
        "freeze_backbone": config.freeze_vla_backbone,
        "attn_implementation": config.attn_implementation,
        "dtype": config.dtype,
        "gradient_checkpointing": config.gradient_checkpointing,
        "random_shift_px": config.random_shift_px,
    }
