"""Low-rank adapters (LoRA, arXiv:2106.09685) on a backbone's language model, through peft.

Training updates the adapters. A saved model has them merged into its weights, so that loading it needs no peft.
"""

from __future__ import annotations

from torch import nn

from hlrp.foundation.config import LoRASettings
from hlrp.runtime.extras import MissingPackage


def add_lora(language_model: nn.Module, settings: LoRASettings) -> None:
    """Add trainable adapters to the linear layers of a frozen model, in place, if `settings` turns LoRA on.

    Raises:
        ValueError: If peft is not installed, or a name in `target_modules` matches no layer.
    """
    if not settings.is_on:
        return
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        raise MissingPackage("peft", needed_for="lora") from error
    names = [name for name, layer in language_model.named_modules() if isinstance(layer, nn.Linear)]
    lost = [target for target in settings.target_modules if not any(name.endswith(target) for name in names)]
    if lost:
        raise ValueError(f"lora.target_modules has {', '.join(lost)}, which no linear layer of this model is called")
    inject_adapter_in_model(
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=settings.dropout,
            target_modules=list(settings.target_modules),
        ),
        language_model,
    )


def merge_lora(language_model: nn.Module) -> None:
    """Merge every adapter into its linear layer, in place; a model without adapters is unchanged."""
    # peft renames an adapted layer to `base_layer`. Without one, peft need not be installed.
    if not any(name.endswith("base_layer") for name, _ in language_model.named_modules()):
        return
    from peft.tuners.lora import Linear

    for name, layer in list(language_model.named_modules()):
        if isinstance(layer, Linear):
            layer.merge(safe_merge=True)
            parent, _, attribute = name.rpartition(".")
            setattr(language_model.get_submodule(parent), attribute, layer.get_base_layer())
