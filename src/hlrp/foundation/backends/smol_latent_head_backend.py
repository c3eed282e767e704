"""Backend `smol_latent_head`: a SmolVLM2 with a latent head that predicts all codes of a label at once.

One forward pass without decoding is faster than an answer in tokens; the slots of a label are independent given the
features. The model is one from the hub (such as `HuggingFaceTB/SmolVLM2-500M-Video-Instruct`), one in a local folder,
or a small one built offline. The language model's output head is discarded.

Shapes: b batch, v cameras, l prompt tokens, p image tokens of one sample, s codes, k entries, d width, m candidates,
w width of one latent vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor
from transformers import (
    AutoProcessor,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMModel,
    SmolVLMProcessor,
)
from transformers.initialization import no_init_weights

from hlrp.foundation.augment import random_shift
from hlrp.foundation.backends.interfaces import (
    DTYPES,
    FoundationBackend,
    FoundationLoss,
    LatentCandidates,
    LatentPrediction,
    PromptFeatures,
)
from hlrp.foundation.backends.qwen3vl.constrained_decode import Choice
from hlrp.foundation.backends.smolvlm.embedded_model import (
    set_position_spread,
    tiny_smol_processor,
    tiny_smol_size,
    tiny_smolvlm_config,
)
from hlrp.foundation.backends.smolvlm.latent_head import LatentHead, SlotScores
from hlrp.foundation.backends.smolvlm.vector_flow_head import VectorFlowHead
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.config import LoRASettings, SmolLatentHeadConfig
from hlrp.foundation.image_inputs import SmolImageProcessor, SquareGeometry, resize_and_normalize
from hlrp.foundation.lora import add_lora, merge_lora
from hlrp.foundation.processor_parts import pretrained_processor, save_processor, tokenizer_of
from hlrp.foundation.prompt_inputs import SmolPromptTokenizer, TokenizedPrompts
from hlrp.latents import LatentActions, LatentSpec
from hlrp.training.evaluation_mode import evaluation_mode
from hlrp.training.row_draws import RowDraws


class SmolLatentHeadBackend(FoundationBackend):
    """Foundation backend that predicts latent codes by a head on a SmolVLM2's prompt features."""

    backend_type: ClassVar[str] = "smol_latent_head"

    def __init__(
        self, config: SmolLatentHeadConfig, spec: LatentSpec, model: SmolVLMModel, processor: SmolVLMProcessor
    ) -> None:
        """Add a new latent head to a model; see `build` and `from_assets`."""
        super().__init__()
        self.config = config
        self.spec = spec
        self.model = model
        self.processor = processor
        images: SmolImageProcessor = processor.image_processor  # pyright: ignore[reportAttributeAccessIssue]
        self.geometry = SquareGeometry.of(images, model.config, config.image_size)
        _show_whole_images(processor, images, self.geometry)
        self.prompt_tokenizer = SmolPromptTokenizer(processor, system_prompt=config.system_prompt)
        _keep_first_layers(model, config.num_vlm_layers)
        self.head = LatentHead(
            config.head,
            width=self.feature_dim,
            num_slots=spec.num_codes,
            codebook_size=spec.codebook_size,
            layers=config.head_layers,
            heads=config.head_heads,
        )
        self.vector_head = (
            VectorFlowHead(condition_width=self.feature_dim, num_slots=spec.num_codes, vector_width=spec.code_dim)
            if config.vector_loss_weight > 0
            else None
        )
        if config.freeze_vision_tower:
            model.vision_model.requires_grad_(False)
            model.connector.requires_grad_(False)
        if config.freeze_backbone or config.lora.is_on:
            model.requires_grad_(False)
            add_lora(model.text_model, config.lora)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})

    @classmethod
    def build(cls, config: SmolLatentHeadConfig, spec: LatentSpec) -> SmolLatentHeadBackend:
        """A model to start training from: pretrained if `model_name` is given, otherwise small and random.

        Raises:
            ValueError: If the image size or the number of layers does not fit the model.
            FileNotFoundError: If `model_name` cannot be found.
        """
        if config.model_name is None:
            processor = tiny_smol_processor()
            size = tiny_smol_size(config.embedded_size)
            model = _from_config(config, tiny_smolvlm_config(size, processor, config.image_size))
            set_position_spread(model, size)
            return cls(config, spec, model, processor)
        processor = pretrained_processor(config.model_name)
        if not isinstance(processor, SmolVLMProcessor):
            raise ValueError(
                f"{config.model_name} has a {type(processor).__name__}, expected a SmolVLMProcessor; "
                "name a SmolVLM2 chat model"
            )
        with_output_head = SmolVLMForConditionalGeneration.from_pretrained(
            config.model_name, dtype=DTYPES[config.dtype], attn_implementation=config.attn_implementation
        )
        return cls(config, spec, with_output_head.model, processor)

    @classmethod
    def from_assets(cls, directory: Path, *, config: Mapping[str, Any], spec: LatentSpec) -> SmolLatentHeadBackend:
        if not (directory / "config.json").is_file():
            raise FileNotFoundError(f"{directory} has no config.json; expected the assets of a saved foundation model")
        processor = AutoProcessor.from_pretrained(directory, local_files_only=True)
        tokenizer_of(processor).init_kwargs.pop("is_local", None)  # set while loading; it would be saved, too
        model_config = SmolVLMConfig.from_pretrained(directory, local_files_only=True)
        own_config = SmolLatentHeadConfig.from_dict(config)
        with no_init_weights():  # all weights are loaded afterwards, strictly
            model = _from_config(own_config, model_config)
        return cls(own_config, spec, model, processor)

    def save_assets(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.model.config.save_pretrained(directory)
        save_processor(self.processor, directory)

    def config_dict(self) -> dict[str, Any]:
        return self.config.to_dict()

    @property
    def feature_dim(self) -> int:
        return self.model.config.get_text_config().hidden_size

    def loss(self, batch: FoundationBatch) -> FoundationLoss:
        labels = batch.require_labels(self.spec)
        codes, counted = labels.targets(), labels.counted
        vectors = self._vector_labels(labels)
        draws = self.row_draws(batch)
        features = self._features(batch, draws)
        slots = self._slots(features)
        entropy = F.cross_entropy(slots.logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(codes)
        per_sample = torch.where(counted, entropy.mean(1), 0.0)
        num_counted = counted.sum().clamp_min(1)
        terms = {}
        if self.vector_head is not None:
            assert vectors is not None
            flow = self.vector_head.loss(vectors, slots.features, counted, draws=draws)
            terms = {"codes": per_sample.sum() / num_counted, "vectors": flow.sum() / num_counted}
            per_sample = per_sample + self.config.vector_loss_weight * flow
        right = (slots.logits.argmax(-1) == codes) & counted[:, None]
        return FoundationLoss(
            loss=per_sample.sum() / num_counted,
            per_sample=per_sample,
            counted=counted,
            accuracy=right.sum(0) / num_counted,
            logits=slots.logits,
            features=features,
            terms=terms,
        )

    @torch.no_grad()
    def predict(
        self,
        batch: FoundationBatch,
        *,
        temperature: float | None = None,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> LatentPrediction:
        choice = Choice(temperature, top_k, generator)
        with evaluation_mode(self):
            features = self.features(batch)
            slots = self._slots(features)
        log_p = slots.logits.log_softmax(-1)
        codes = _pick(choice, log_p)
        vectors = self._predict_vectors(slots, choice)  # drawn last: codes then do not depend on this head
        return LatentPrediction(codes, _log_prob(log_p, codes), features, vectors)

    @torch.no_grad()
    def sample(
        self,
        batch: FoundationBatch,
        *,
        num_samples: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> LatentCandidates:
        log_p = repeat(self._log_p(batch), "b s k -> b m s k", m=num_samples)
        codes = _pick(Choice(temperature, top_k, generator), log_p)
        return LatentCandidates(codes, _log_prob(log_p, codes))

    @torch.no_grad()
    def beam_search(self, batch: FoundationBatch, *, beams: int) -> LatentCandidates:
        """The `beams` most likely labels, best first; exact, because slots are independent given the features."""
        if beams < 1:
            raise ValueError(f"beams must be 1 or more, got {beams}")
        log_p = self._log_p(batch)
        codes = most_likely_labels(log_p, beams)
        return LatentCandidates(codes, _log_prob(repeat(log_p, "b s k -> b m s k", m=codes.shape[1]), codes))

    def merge_adapters(self) -> None:
        merge_lora(self.model.text_model)
        self.config = replace(self.config, lora=LoRASettings())

    def features(self, batch: FoundationBatch) -> PromptFeatures:
        return self._features(batch, self.row_draws(batch))

    def _features(self, batch: FoundationBatch, draws: RowDraws) -> PromptFeatures:
        prompts = self.prompt_tokenizer(batch.instructions, num_cameras=batch.images.shape[1], device=self.draws.device)
        # Image tokens are inserted by `_embed`: transformers' own code would copy masks to the CPU and would drop an
        # image of constant mid-grey, whose normalized pixels are all 0, as if it were padding.
        hidden = self.model.text_model(
            inputs_embeds=self._embed(prompts, self._image_tokens(batch, draws)),
            attention_mask=prompts.mask if prompts.is_padded else None,
            position_ids=(prompts.mask.cumsum(1) - 1).clamp_min(0) if prompts.is_padded else None,
            use_cache=False,
        ).last_hidden_state
        return PromptFeatures(hidden, prompts.mask)

    def _image_tokens(self, batch: FoundationBatch, draws: RowDraws) -> Float[Tensor, "b p d"]:
        """Language-model tokens of all images of each sample, ordered by camera."""
        images = rearrange(batch.images, "b v c h w -> (b v) c h w")
        if self.training:
            images = random_shift(images, self.config.random_shift_px, draws=draws)
        size = (self.geometry.side, self.geometry.side)
        pixels = resize_and_normalize(images, size, mean=self.geometry.mean, std=self.geometry.std)
        patches = self.model.vision_model(pixel_values=pixels.to(self.model.vision_model.dtype)).last_hidden_state
        return rearrange(self.model.connector(patches), "(b v) n d -> b (v n) d", b=len(batch))

    def _embed(self, prompts: TokenizedPrompts, image_tokens: Float[Tensor, "b p d"]) -> Float[Tensor, "b l d"]:
        """Token embeddings of the prompts, with `image_tokens` in place of the image placeholders."""
        words = self.model.get_input_embeddings()(prompts.input_ids)
        is_image = prompts.input_ids == self.model.image_token_id
        order = (is_image.cumsum(1) - 1).clamp_min(0)  # index of the image token for each placeholder
        placed = image_tokens.gather(1, repeat(order, "b l -> b l d", d=words.shape[-1]))
        return torch.where(is_image[..., None], placed, words)

    def _slots(self, features: PromptFeatures) -> SlotScores:
        return self.head(features.hidden, features.mask)

    def _log_p(self, batch: FoundationBatch) -> Float[Tensor, "b s k"]:
        """Log-probabilities of all codes, computed in evaluation mode."""
        with evaluation_mode(self):
            return self._slots(self.features(batch)).logits.log_softmax(-1)

    def _vector_labels(self, labels: LatentActions) -> Float[Tensor, "b s w"] | None:
        """Latent vectors of `labels`, checked against the spec; None if this model has no continuous head."""
        if self.vector_head is None:
            return None
        if labels.vectors is None:
            raise ValueError(
                "vector_loss_weight is positive and the batch has no latent vectors; "
                "label the dataset with vectors or set vector_loss_weight to 0"
            )
        expected = (len(labels), self.spec.num_codes, self.spec.code_dim)
        if labels.vectors.shape != expected:
            raise ValueError(
                f"vectors must be {expected}, got {tuple(labels.vectors.shape)}; "
                "use labels of the LAQ this model was built for"
            )
        return labels.vectors

    def _predict_vectors(self, slots: SlotScores, choice: Choice) -> Float[Tensor, "b s w"] | None:
        if self.vector_head is None:
            return None
        noise = slots.features.new_zeros(*slots.features.shape[:2], self.spec.code_dim)
        if choice.temperature is not None:
            noise = noise.normal_(generator=choice.generator)
        return self.vector_head.integrate(noise, slots.features, steps=self.config.flow_steps)


def most_likely_labels(log_p: Float[Tensor, "b s k"], count: int) -> Int[Tensor, "b m s"]:
    """The `count` most likely labels of independent slots, best first; all k^s labels if there are fewer.

    Every prefix of a label among the best m is itself among the best m prefixes of its length. Keeping m prefixes per
    slot is therefore exact.
    """
    codes = torch.zeros(len(log_p), 1, 0, dtype=torch.int64, device=log_p.device)
    total = log_p.new_zeros(len(log_p), 1)
    k = log_p.shape[2]
    for slot in log_p.unbind(1):
        extended = rearrange(total[:, :, None] + slot[:, None], "b m k -> b (m k)")
        total, best = extended.topk(min(count, extended.shape[1]), dim=1)
        prefix = codes.gather(1, repeat(best // k, "b m -> b m s", s=codes.shape[2]))
        codes = torch.cat([prefix, (best % k)[..., None]], 2)
    return codes


def _pick(choice: Choice, log_p: Float[Tensor, "... k"]) -> Int[Tensor, "..."]:
    return choice.pick(log_p.flatten(0, -2)).view(log_p.shape[:-1])


def _log_prob(log_p: Float[Tensor, "... k"], codes: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    return log_p.gather(-1, codes[..., None])[..., 0]


def _from_config(config: SmolLatentHeadConfig, model_config: SmolVLMConfig) -> SmolVLMModel:
    return SmolVLMModel._from_config(
        model_config, attn_implementation=config.attn_implementation, dtype=DTYPES[config.dtype]
    )


def _show_whole_images(processor: SmolVLMProcessor, images: SmolImageProcessor, geometry: SquareGeometry) -> None:
    """Set the processor to the images that the model gets: one square image per camera, without crops.

    The processor then counts the image placeholders of a prompt correctly, and a saved checkpoint describes the input.
    """
    images.do_image_splitting = False
    images.size = {"height": geometry.side, "width": geometry.side}
    images.max_image_size = {"longest_edge": geometry.side}
    processor.image_seq_len = geometry.tokens_per_image


def _keep_first_layers(model: SmolVLMModel, count: int | None) -> None:
    """Remove the language model's layers after the first `count`; the final norm is kept. None keeps all layers."""
    if count is None:
        return
    config, layers = model.config.get_text_config(), model.text_model.layers
    if count > len(layers):
        raise ValueError(f"num_vlm_layers must be at most {len(layers)}, the language model's layers, got {count}")
    model.text_model.layers = layers[:count]
    # Both configurations are set: the text model may hold a copy, and a checkpoint is rebuilt from the outer one.
    config.num_hidden_layers = count
    model.text_model.config.num_hidden_layers = count
