"""What the backends around a chat model of transformers share: parts, trained weights, files and image input.

Shapes: i images of all samples and cameras.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub.errors import StrictDataclassError
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin
from transformers.initialization import no_init_weights

from hlrp.foundation.backends.interfaces import DTYPES, FoundationBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.config import BackendConfig, LoRASettings
from hlrp.foundation.image_inputs import vlm_images
from hlrp.foundation.lora import add_lora, merge_lora
from hlrp.foundation.pretrained_files import require_sizes
from hlrp.foundation.processor_parts import pretrained_processor, save_processor, saved_processor, tokenizer_of
from hlrp.latents import LatentSpec
from hlrp.storage.artefacts import read_json, reading
from hlrp.storage.weight_files import DOWNLOAD_AGAIN, unpickled_safely
from hlrp.training.row_draws import RowDraws


class ChatModelBackend(FoundationBackend):
    """Foundation backend around a chat model of transformers and its processor.

    A subclass builds what it adds to the model in its own `__init__`, and then calls `freeze`.
    """

    asset_files = (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "processor_config.json",
        "chat_template.json",
    )
    config_class: ClassVar[type[BackendConfig]]
    """Class of this backend's options."""
    model_class: ClassVar[type[PreTrainedModel]]
    """Class of the model in transformers."""
    processor_class: ClassVar[type[ProcessorMixin]]
    """Class of the model's processor in transformers."""
    kind_of_model: ClassVar[str]
    """Name of the kind of model, for messages, such as "Qwen3-VL chat model"."""
    config: Any
    model: Any
    processor: Any

    def __init__(
        self, config: BackendConfig, spec: LatentSpec, model: PreTrainedModel, processor: ProcessorMixin
    ) -> None:
        super().__init__()
        self.config = config
        self.spec = spec
        self.model = model
        self.processor = processor

    @property
    @abstractmethod
    def language_model(self) -> nn.Module:
        """Language model, whose linear layers get LoRA adapters."""

    @property
    @abstractmethod
    def vision_parts(self) -> list[nn.Module]:
        """Vision tower, and its projection into the language model."""

    @property
    def feature_dim(self) -> int:
        return self.model.config.get_text_config().hidden_size

    def freeze(self) -> None:
        """Freeze the weights that `config` does not train; set up LoRA and gradient checkpointing if `config` asks."""
        if self.config.freeze_vision_tower:
            for part in self.vision_parts:
                part.requires_grad_(False)
        if self.is_frozen:
            self.model.requires_grad_(False)
            add_lora(self.language_model, self.config.lora)
        if self.config.gradient_checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})

    @property
    def is_frozen(self) -> bool:
        """Whether the pretrained weights of the whole model are frozen."""
        return self.config.freeze_backbone or self.config.lora.is_on

    def merge_adapters(self) -> None:
        merge_lora(self.language_model)
        self.config = replace(self.config, lora=LoRASettings())

    def save_assets(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.model.config.save_pretrained(directory)
        save_processor(self.processor, directory)

    @classmethod
    def from_assets(cls, directory: Path, *, config: Mapping[str, Any], spec: LatentSpec) -> ChatModelBackend:
        if not (directory / "config.json").is_file():
            raise FileNotFoundError(f"{directory} has no config.json; expected the assets of a saved foundation model")
        processor = saved_processor(directory, cls.processor_class)
        tokenizer_of(processor).init_kwargs.pop("is_local", None)  # set while loading; it would be saved, too
        model_config = cls._saved_architecture(directory)
        own_config = cls.config_class.from_dict(config)
        with no_init_weights():  # all weights are loaded afterwards, strictly
            model = cls.untrained_model(own_config, model_config)
        model.tie_weights()
        return cls(own_config, spec, model, processor)

    @classmethod
    def large_parts(cls, directory: Path, *, config: Mapping[str, Any]) -> nn.Module:
        return cls.untrained_model(cls.config_class.from_dict(config), cls._saved_architecture(directory))

    @classmethod
    def _saved_architecture(cls, directory: Path) -> PretrainedConfig:
        """Architecture in the file `config.json` of `directory`, after a check of its sizes."""
        assert cls.model_class.config_class is not None
        with reading(directory / "config.json"):
            require_sizes(read_json(directory / "config.json"))
            try:
                return cls.model_class.config_class.from_pretrained(directory, local_files_only=True)
            except StrictDataclassError as error:  # raised by huggingface_hub if an entry has a wrong type
                raise ValueError(str(error)) from error

    @classmethod
    def untrained_model(cls, config: BackendConfig, model_config: PretrainedConfig) -> Any:
        """A model of the architecture `model_config`, with random weights."""
        return cls.model_class._from_config(
            model_config, attn_implementation=config.attn_implementation, dtype=DTYPES[config.dtype]
        )

    @classmethod
    def pretrained(cls, config: BackendConfig, model_class: type[PreTrainedModel]) -> tuple[Any, Any]:
        """The pretrained model called `config.model_name`, as `model_class`, and its processor.

        Raises:
            FileNotFoundError: If there is no such model.
            ValueError: If the model is of another kind.
        """
        assert config.model_name is not None
        processor = pretrained_processor(config.model_name)
        if not isinstance(processor, cls.processor_class):
            raise ValueError(
                f"{config.model_name} has a {type(processor).__name__}, expected a {cls.processor_class.__name__}; "
                f"name a {cls.kind_of_model}"
            )
        with reading(f"model {config.model_name}", remedy=DOWNLOAD_AGAIN), unpickled_safely():
            model = model_class.from_pretrained(
                config.model_name,
                dtype=DTYPES[config.dtype],
                attn_implementation=config.attn_implementation,
                trust_remote_code=False,
            )
        # `from_pretrained` ends in evaluation mode, in which gradient checkpointing and dropout have no effect.
        return model.train(), processor

    def images(self, batch: FoundationBatch, draws: RowDraws | None = None) -> Float[Tensor, "i c height width"]:
        """Images of `batch` at the model's input size; in training they are shifted at random.

        `draws` are the random numbers of this forward pass; None takes new ones.
        """
        if not self.training:
            return vlm_images(batch.images, self.config.image_size)
        return vlm_images(
            batch.images,
            self.config.image_size,
            max_shift=self.config.random_shift_px,
            draws=draws or self.row_draws(batch),
        )
