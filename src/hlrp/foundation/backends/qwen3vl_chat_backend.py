"""Backend `qwen3vl_chat`: a Qwen3-VL chat model answers images and an instruction with action tokens.

The model is one from the hub (such as `nvidia/Cosmos-Reason2-2B`), one in a local folder, or a small one built offline.
Shapes: b batch, v cameras, l prompt tokens, a answer tokens, t = l+a, s codes, k entries, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    AutoProcessor,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
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
from hlrp.foundation.backends.qwen3vl.action_tokens import add_action_tokens
from hlrp.foundation.backends.qwen3vl.constrained_decode import (
    Choice,
    ConstrainedDecoder,
    Decoded,
    beam_search,
    decode_codes,
    with_answer,
)
from hlrp.foundation.backends.qwen3vl.embedded_model import tiny_processor, tiny_qwen3vl_config, tiny_size
from hlrp.foundation.backends.qwen3vl.trainable_rows import EmbeddingWithRows, HeadWithRows, output_rows
from hlrp.foundation.backends.qwen3vl.uniform_vision import use_uniform_vision
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.config import LoRASettings, QwenVLChatConfig
from hlrp.foundation.image_inputs import ImageGeometry, build_pixel_values
from hlrp.foundation.lora import add_lora, merge_lora
from hlrp.foundation.processor_parts import image_processor_of, pretrained_processor, save_processor, tokenizer_of
from hlrp.foundation.prompt_inputs import Prompts, PromptTokenizer
from hlrp.latents import LatentSpec
from hlrp.training.evaluation_mode import evaluation_mode


class QwenVLChatBackend(FoundationBackend):
    """Foundation backend that predicts latent codes as the answer of a Qwen3-VL chat model."""

    backend_type: ClassVar[str] = "qwen3vl_chat"
    code_ids: Int[Tensor, " k"]

    def __init__(
        self,
        config: QwenVLChatConfig,
        spec: LatentSpec,
        model: Qwen3VLForConditionalGeneration,
        processor: Qwen3VLProcessor,
    ) -> None:
        """Wrap a model whose embedding already has rows for the action tokens; see `build` and `from_assets`."""
        super().__init__()
        self.config = config
        self.spec = spec
        self.model = model
        self.processor = processor
        self.tokens = add_action_tokens(tokenizer_of(processor), config.tokens, spec.codebook_size)
        self.geometry = ImageGeometry.of(image_processor_of(processor), config.image_size)
        self.prompt_tokenizer = PromptTokenizer(
            processor, self.geometry, model.model.get_rope_index, system_prompt=config.system_prompt
        )
        self.register_buffer("code_ids", torch.tensor(self.tokens.codes), persistent=False)
        use_uniform_vision(model.model.visual)
        if config.freeze_vision_tower:
            model.model.visual.requires_grad_(False)
        if config.freeze_backbone or config.lora.is_on:
            model.requires_grad_(False)
            add_lora(model.model.language_model, config.lora)
            _overlay_rows(model, self.tokens.added)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})

    @classmethod
    def build(cls, config: QwenVLChatConfig, spec: LatentSpec) -> QwenVLChatBackend:
        """A model to start training from: pretrained if `model_name` is given, otherwise small and random.

        Raises:
            ValueError: If the image size does not fit the model.
            FileNotFoundError: If `model_name` cannot be found.
        """
        if config.model_name is None:
            size = tiny_size(config.embedded_size)
            processor = tiny_processor(size, config.image_size)
            add_action_tokens(tokenizer_of(processor), config.tokens, spec.codebook_size)
            return cls(
                config,
                spec,
                _from_config(config, tiny_qwen3vl_config(size, processor, config.image_size)),
                processor,
            )
        processor = pretrained_processor(config.model_name)
        if not isinstance(processor, Qwen3VLProcessor):
            raise ValueError(
                f"{config.model_name} has a {type(processor).__name__}, expected a Qwen3VLProcessor; "
                "name a Qwen3-VL chat model"
            )
        model = Qwen3VLForConditionalGeneration.from_pretrained(
            config.model_name, dtype=DTYPES[config.dtype], attn_implementation=config.attn_implementation
        )
        known = set(tokenizer_of(processor).get_vocab().values())
        tokens = add_action_tokens(tokenizer_of(processor), config.tokens, spec.codebook_size)
        _add_vocabulary(model, [token for token in tokens.added if token not in known])
        return cls(config, spec, model, processor)

    @classmethod
    def from_assets(cls, directory: Path, *, config: Mapping[str, Any], spec: LatentSpec) -> QwenVLChatBackend:
        if not (directory / "config.json").is_file():
            raise FileNotFoundError(f"{directory} has no config.json; expected the assets of a saved foundation model")
        processor = AutoProcessor.from_pretrained(directory, local_files_only=True)
        tokenizer_of(processor).init_kwargs.pop("is_local", None)  # set while loading; it would be saved, too
        model_config = Qwen3VLConfig.from_pretrained(directory, local_files_only=True)
        own_config = QwenVLChatConfig.from_dict(config)
        with no_init_weights():  # all weights are loaded afterwards, strictly
            model = _from_config(own_config, model_config)
        model.tie_weights()
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
        answer = self.tokens.answer(codes)
        whole_answer = self.config.loss_over == "vocabulary"
        # Feed only tokens that predict a target: up to the code before the last, or up to the closing token.
        prompts = self._prompts(batch)
        hidden = self._hidden(prompts, self._vision(batch), answer[:, : -1 if whole_answer else -3])
        length = prompts.input_ids.shape[1]
        if whole_answer:
            # Hidden state i predicts token i+1, so the scores begin at the last token of the prompt.
            scores = self.model.lm_head(hidden[:, length - 1 :]).float()  # b s+3 V
            entropy = F.cross_entropy(scores.flatten(0, 1), answer.flatten(), reduction="none").view_as(answer)
            logits = scores[:, 1:-2, self.code_ids]
        else:
            logits = F.linear(hidden[:, length:], self._code_rows()).float()  # the start token is given, not predicted
            entropy = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view_as(codes)
        per_sample = torch.where(counted, entropy.mean(1), 0.0)
        num_counted = counted.sum().clamp_min(1)
        right = (logits.argmax(-1) == codes) & counted[:, None]
        return FoundationLoss(
            loss=per_sample.sum() / num_counted,
            per_sample=per_sample,
            counted=counted,
            accuracy=right.sum(0) / num_counted,
            logits=logits,
            features=PromptFeatures(hidden[:, :length], prompts.mask),
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
        prompts = self._prompts(batch)
        with evaluation_mode(self):
            decoded = decode_codes(self._decoder(prompts, batch), choice, num_codes=self.spec.num_codes)
        return LatentPrediction(decoded.codes, decoded.log_probs, PromptFeatures(decoded.prompt_hidden, prompts.mask))

    def sample(
        self,
        batch: FoundationBatch,
        *,
        num_samples: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> LatentCandidates:
        choice, s = Choice(temperature, top_k, generator), self.spec.num_codes
        with evaluation_mode(self):
            decoder = self._decoder(self._prompts(batch), batch)
            return _candidates(decode_codes(decoder, choice, num_codes=s, num_samples=num_samples), len(batch))

    def beam_search(self, batch: FoundationBatch, *, beams: int) -> LatentCandidates:
        with evaluation_mode(self):
            decoder = self._decoder(self._prompts(batch), batch)
            return _candidates(beam_search(decoder, num_codes=self.spec.num_codes, beams=beams), len(batch))

    def merge_adapters(self) -> None:
        merge_lora(self.model.model.language_model)
        self.config = replace(self.config, lora=LoRASettings())

    def features(self, batch: FoundationBatch) -> PromptFeatures:
        prompts = self._prompts(batch)
        nothing = prompts.input_ids[:, :0]
        return PromptFeatures(self._hidden(prompts, self._vision(batch), nothing), prompts.mask)

    def _decoder(self, prompts: Prompts, batch: FoundationBatch) -> ConstrainedDecoder:
        return ConstrainedDecoder(
            self.model.model,
            prompts,
            self._vision(batch),
            start_id=self.tokens.start,
            code_ids=self.code_ids,
            code_rows=self._code_rows(),
        )

    def _hidden(
        self, prompts: Prompts, vision: dict[str, Tensor], answer: Int[Tensor, "b a"]
    ) -> Float[Tensor, "b t d"]:
        ids, positions, mask = with_answer(prompts, answer)
        output = self.model.model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False, **vision)
        return output.last_hidden_state

    def _prompts(self, batch: FoundationBatch) -> Prompts:
        return self.prompt_tokenizer(batch.instructions, num_cameras=batch.images.shape[1], device=self.code_ids.device)

    def _vision(self, batch: FoundationBatch) -> dict[str, Tensor]:
        images = rearrange(batch.images, "b v c h w -> (b v) c h w")
        if self.training:
            images = random_shift(images, self.config.random_shift_px, draws=self.row_draws(batch))
        pixels = build_pixel_values(images, self.geometry)
        return {"pixel_values": pixels, "image_grid_thw": self.geometry.grid(len(images))}

    def _code_rows(self) -> Float[Tensor, "k d"]:
        return output_rows(self.model.lm_head, self.code_ids)


def _from_config(config: QwenVLChatConfig, model_config: Qwen3VLConfig) -> Qwen3VLForConditionalGeneration:
    return Qwen3VLForConditionalGeneration._from_config(
        model_config, attn_implementation=config.attn_implementation, dtype=DTYPES[config.dtype]
    )


def _candidates(decoded: Decoded, batch_size: int) -> LatentCandidates:
    codes, log_probs = (
        rearrange(rows, "(b m) s -> b m s", b=batch_size) for rows in (decoded.codes, decoded.log_probs)
    )
    return LatentCandidates(codes, log_probs)


@torch.no_grad()
def _add_vocabulary(model: Qwen3VLForConditionalGeneration, new_ids: list[int]) -> None:
    """Enlarge the vocabulary for `new_ids`; start the new rows at the mean of the known rows, plus a little noise.

    Many hub models have more rows than their tokenizer has tokens. The matrices then keep their size.
    """
    if not new_ids:
        return
    if max(new_ids) >= len(_embedding(model).weight):
        model.resize_token_embeddings(max(new_ids) + 1, mean_resizing=False)
    matrices = {id(matrix): matrix for matrix in (_embedding(model).weight, model.lm_head.weight)}  # one matrix if tied
    for matrix in matrices.values():
        known = matrix[: min(new_ids)].float()
        noise = torch.randn(len(new_ids), matrix.shape[1], device=matrix.device)
        matrix[new_ids] = (known.mean(0) + 0.1 * known.std(0) * noise).to(matrix.dtype)


def _embedding(model: Qwen3VLForConditionalGeneration) -> nn.Embedding:
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding


def _overlay_rows(model: Qwen3VLForConditionalGeneration, ids: tuple[int, ...]) -> None:
    """Make only the rows `ids` trainable in the frozen embedding and output head of `model`, in place."""
    embedding, head = _embedding(model), model.lm_head
    is_tied = head.weight is embedding.weight
    inside = EmbeddingWithRows(embedding, ids)
    model.set_input_embeddings(inside)
    model.lm_head = HeadWithRows(head, ids, tied_to=inside if is_tied else None)  # pyright: ignore[reportAttributeAccessIssue]
