"""Backend `smol_latent_head`: a SmolVLM2 with a latent head that predicts all codes of a label at once.

One forward pass without decoding is faster than an answer in tokens; the slots of a label are independent given the
features. The model is one from the hub (such as `HuggingFaceTB/SmolVLM2-500M-Video-Instruct`), one in a local folder,
or a small one built offline. The language model's output head is discarded.

Shapes: l prompt tokens, p image tokens of one sample, g image tokens of one image, x candidate labels of one sample.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from transformers import SmolVLMForConditionalGeneration, SmolVLMModel, SmolVLMProcessor

from hlrp.foundation.backends.chat_model import ChatModelBackend
from hlrp.foundation.backends.choice import Choice, log_prob_of, most_likely_labels
from hlrp.foundation.backends.embedded import embedded_size
from hlrp.foundation.backends.interfaces import (
    FoundationLoss,
    LatentCandidates,
    LatentPrediction,
    PromptFeatures,
    cross_entropy,
)
from hlrp.foundation.backends.smolvlm.config import SmolLatentHeadConfig
from hlrp.foundation.backends.smolvlm.embedded_model import (
    set_position_spread,
    tiny_smol_processor,
    tiny_smolvlm_config,
)
from hlrp.foundation.backends.smolvlm.images import SmolImageProcessor, SquareGeometry
from hlrp.foundation.backends.smolvlm.latent_head import LatentHead, SlotScores
from hlrp.foundation.backends.smolvlm.prompts import SmolPromptTokenizer
from hlrp.foundation.backends.smolvlm.vector_flow_head import VectorFlowHead
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.image_inputs import normalize
from hlrp.foundation.prompt_inputs import TokenizedPrompts
from hlrp.latents import LatentActions, LatentSpec
from hlrp.training.row_draws import RowDraws


class SmolLatentHeadBackend(ChatModelBackend):
    """Foundation backend that predicts latent codes by a head on a SmolVLM2's prompt features."""

    repeated_blocks = ("LlamaDecoderLayer", "SmolVLMEncoderLayer")
    lora_targets = r"model\.text_model\..*\.(q|k|v|o|gate|up|down)_proj"
    config_class = SmolLatentHeadConfig
    model_class = SmolVLMModel
    processor_class = SmolVLMProcessor
    kind_of_model: ClassVar[str] = "SmolVLM2 chat model"
    config: SmolLatentHeadConfig
    model: SmolVLMModel
    processor: SmolVLMProcessor

    def __init__(
        self, config: SmolLatentHeadConfig, spec: LatentSpec, model: SmolVLMModel, processor: SmolVLMProcessor
    ) -> None:
        """Add a new latent head to a model; see `build` and `from_assets`."""
        super().__init__(config, spec, model, processor)
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
        self.freeze()

    @classmethod
    def build(cls, config: SmolLatentHeadConfig, spec: LatentSpec) -> SmolLatentHeadBackend:
        if config.model_name is None:
            processor = tiny_smol_processor()
            architecture = tiny_smolvlm_config(embedded_size(config.embedded_size), processor, config.image_size)
            model = cls.untrained_model(config, architecture)
            set_position_spread(model)
            return cls(config, spec, model, processor)
        with_output_head, processor = cls.pretrained(config, SmolVLMForConditionalGeneration)
        return cls(config, spec, with_output_head.model, processor)

    @property
    def language_model(self) -> nn.Module:
        return self.model.text_model

    @property
    def vision_parts(self) -> list[nn.Module]:
        return [self.model.vision_model, self.model.connector]

    def loss(self, batch: FoundationBatch) -> FoundationLoss:
        labels = batch.require_labels(self.spec)
        codes, counted = labels.targets(), labels.counted
        vectors = self._vector_labels(labels)
        draws = self.row_draws(batch)
        features = self._features(batch, draws)
        slots = self._slots(features)
        vector_loss = None
        if self.vector_head is not None:
            assert vectors is not None
            vector_loss = self.vector_head.loss(vectors, slots.features, counted, draws=draws)
        return FoundationLoss.of(
            cross_entropy(slots.logits, codes),
            logits=slots.logits,
            codes=codes,
            counted=counted,
            features=features,
            vector_loss=vector_loss,
            vector_weight=self.config.vector_loss_weight,
        )

    def _predict(self, batch: FoundationBatch, choice: Choice) -> LatentPrediction:
        features = self.features(batch)
        slots = self._slots(features)
        log_p = slots.logits.log_softmax(-1)
        codes = choice.pick_slots(log_p)
        vectors = self._predict_vectors(slots, choice)  # sampled after the codes, which then do not depend on it
        return LatentPrediction(codes, log_prob_of(log_p, codes), features, vectors)

    def _sample(self, batch: FoundationBatch, num_samples: int, choice: Choice) -> LatentCandidates:
        log_p = repeat(self._log_p(batch), "b q k -> b x q k", x=num_samples)
        codes = choice.pick_slots(log_p)
        return LatentCandidates(codes, log_prob_of(log_p, codes))

    def _beam_search(self, batch: FoundationBatch, beams: int) -> LatentCandidates:
        """The `beams` most likely labels, best first; exact, because slots are independent given the features."""
        log_p = self._log_p(batch)
        codes = most_likely_labels(log_p, beams)
        return LatentCandidates(codes, log_prob_of(repeat(log_p, "b q k -> b x q k", x=codes.shape[1]), codes))

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
        pixels = normalize(self.images(batch, draws), self.geometry.mean, self.geometry.std)
        patches = self.model.vision_model(pixel_values=pixels.to(self.model.vision_model.dtype)).last_hidden_state
        return rearrange(self.model.connector(patches), "(b m) g d -> b (m g) d", b=len(batch))

    def _embed(self, prompts: TokenizedPrompts, image_tokens: Float[Tensor, "b p d"]) -> Float[Tensor, "b l d"]:
        """Token embeddings of the prompts, with `image_tokens` in place of the image placeholders."""
        words = self.model.get_input_embeddings()(prompts.input_ids)
        is_image = prompts.input_ids == self.model.image_token_id
        order = (is_image.cumsum(1) - 1).clamp_min(0)  # index of the image token for each placeholder
        placed = image_tokens.gather(1, repeat(order, "b l -> b l d", d=words.shape[-1]))
        return torch.where(is_image[..., None], placed, words)

    def _slots(self, features: PromptFeatures) -> SlotScores:
        return self.head(features.hidden, features.mask)

    def _log_p(self, batch: FoundationBatch) -> Float[Tensor, "b q k"]:
        """Log-probabilities of all codes."""
        return self._slots(self.features(batch)).logits.log_softmax(-1)

    def _vector_labels(self, labels: LatentActions) -> Float[Tensor, "b q v"] | None:
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

    def _predict_vectors(self, slots: SlotScores, choice: Choice) -> Float[Tensor, "b q v"] | None:
        if self.vector_head is None:
            return None
        noise = slots.features.new_zeros(*slots.features.shape[:2], self.spec.code_dim)
        if choice.temperature is not None:
            noise = noise.normal_(generator=choice.generator)
        return self.vector_head.integrate(noise, slots.features, steps=self.config.flow_steps)


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
