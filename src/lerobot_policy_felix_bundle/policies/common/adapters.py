"""Parts of a policy that PEFT adapts, and parts that are trained in full beside the adapters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn


def default_peft_targets(policy: nn.Module, lora_targets: str, action_modules: Iterable[str]) -> dict[str, Any]:
    """Defaults for PEFT: adapters on the VLM's language model; the action head is trained in full."""
    in_full = [name for part in action_modules for name in _trained_in_full(policy, part)]
    return {"target_modules": rf"backend\.({lora_targets})", "modules_to_save": in_full}


def adapts_vla(policy: nn.Module, peft_config: Any) -> bool:
    """Whether the adapters that `peft_config` describes are put on layers of the foundation VLA."""
    from peft.tuners.tuners_utils import check_target_module_exists

    vla = policy.get_submodule("backend")
    return any(check_target_module_exists(peft_config, name) for name, _ in vla.named_modules(prefix="backend"))


def _trained_in_full(policy: nn.Module, name: str) -> list[str]:
    """Largest submodules of `name`, or `name` itself, whose parameters are all trained."""
    part = policy.get_submodule(name)
    trained = [parameter.requires_grad for parameter in part.parameters()]
    if not any(trained):
        return []
    if all(trained) and not isinstance(part, nn.ModuleList):  # PEFT does not wrap a list
        return [name]
    return [found for child, _ in part.named_children() for found in _trained_in_full(policy, f"{name}.{child}")]
