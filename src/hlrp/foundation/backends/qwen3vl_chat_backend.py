"""Backend `qwen3vl_chat`: a Qwen3-VL chat model answers images and an instruction with action tokens.

The model is one from the hub (such as `nvidia/Cosmos-Reason2-2B`), one in a local folder, or a small one built offline.
Shapes: l prompt tokens, p answer tokens that are given, z = l+p.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import Qwen2VLImageProcessor, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

from hlrp.foundation.backends.chat_model import ChatModelBackend
from hlrp.foundation.backends.choice import Choice
from hlrp.foundation.backends.embedded import embedded_size
from hlrp.foundation.backends.interfaces import (
    FoundationLoss,
    LatentCandidates,
    LatentPrediction,
    PromptFeatures,
    cross_entropy,
)
from hlrp.foundation.backends.qwen3vl.action_tokens import add_action_tokens
from hlrp.foundation.backends.qwen3vl.config import QwenVLChatConfig
from hlrp.foundation.backends.qwen3vl.constrained_decode import (
    ConstrainedDecoder,
    Decoded,
    beam_search,
    decode_codes,
    with_answer,
)
from hlrp.foundation.backends.qwen3vl.embedded_model import DEEPSTACK, tiny_processor, tiny_qwen3vl_config
from hlrp.foundation.backends.qwen3vl.images import ImageGeometry, build_pixel_values
from hlrp.foundation.backends.qwen3vl.prompts import Prompts, PromptTokenizer
from hlrp.foundation.backends.qwen3vl.trainable_rows import EmbeddingWithRows, HeadWithRows, output_rows
from hlrp.foundation.backends.qwen3vl.uniform_vision import use_uniform_vision
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.processor_parts import tokenizer_of
from hlrp.latents import LatentSpec


class QwenVLChatBackend(ChatModelBackend):
    """Foundation backend that predicts latent codes as the answer of a Qwen3-VL chat model."""

    repeated_blocks = ("Qwen3VLTextDecoderLayer", "Qwen3VLVisionBlock")
    lora_targets = r"model\.model\.language_model\..*\.(q|k|v|o|gate|up|down)_proj"
    config_class = QwenVLChatConfig
    model_class = Qwen3VLForConditionalGeneration
    processor_class = Qwen3VLProcessor
    kind_of_model: ClassVar[str] = "Qwen3-VL chat model"
    config: QwenVLChatConfig
    model: Qwen3VLForConditionalGeneration
    processor: Qwen3VLProcessor
    code_ids: Int[Tensor, " k"]

    def __init__(
        self,
        config: QwenVLChatConfig,
        spec: LatentSpec,
        model: Qwen3VLForConditionalGeneration,
        processor: Qwen3VLProcessor,
    ) -> None:
        """Wrap a model whose embedding already has rows for the action tokens; see `build` and `from_assets`."""
        super().__init__(config, spec, model, processor)
        self.tokens = add_action_tokens(tokenizer_of(processor), config.tokens, spec.codebook_size)
        images: Qwen2VLImageProcessor = processor.image_processor  # pyright: ignore[reportAttributeAccessIssue]
        self.geometry = ImageGeometry.of(images, config.image_size)
        self.prompt_tokenizer = PromptTokenizer(
            processor, self.geometry, model.model.get_rope_index, system_prompt=config.system_prompt
        )
        self.register_buffer("code_ids", torch.tensor(self.tokens.codes), persistent=False)
        use_uniform_vision(model.model.visual)
        self.freeze()
        if self.is_frozen:
            _overlay_rows(model, self.tokens.added)

    @classmethod
    def build(cls, config: QwenVLChatConfig, spec: LatentSpec) -> QwenVLChatBackend:
        if config.model_name is None:
            return cls._embedded(config, spec)
        model, processor = cls.pretrained(config, Qwen3VLForConditionalGeneration)
        known = set(tokenizer_of(processor).get_vocab().values())
        tokens = add_action_tokens(tokenizer_of(processor), config.tokens, spec.codebook_size)
        _add_vocabulary(model, [token for token in tokens.added if token not in known])
        return cls(config, spec, model, processor)

    @classmethod
    def _embedded(cls, config: QwenVLChatConfig, spec: LatentSpec) -> QwenVLChatBackend:
        size = embedded_size(config.embedded_size)
        processor = tiny_processor(size, config.image_size)
        add_action_tokens(tokenizer_of(processor), config.tokens, spec.codebook_size)
        architecture = tiny_qwen3vl_config(
            size, processor, config.image_size, deepstack=DEEPSTACK[config.embedded_size]
        )
        return cls(config, spec, cls.untrained_model(config, architecture), processor)

    @property
    def language_model(self) -> nn.Module:
        return self.model.model.language_model

    @property
    def vision_parts(self) -> list[nn.Module]:
        return [self.model.model.visual]

    @property
    def legacy_model(self) -> nn.Module:
        return self.model

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
            scores = self.model.lm_head(hidden[:, length - 1 :]).float()  # (b, q+3, vocabulary)
            entropy = cross_entropy(scores, answer)
            logits = scores[:, 1:-2, self.code_ids]
        else:
            logits = F.linear(hidden[:, length:], self._code_rows()).float()  # the start token is given, not predicted
            entropy = cross_entropy(logits, codes)
        features = PromptFeatures(hidden[:, :length], prompts.mask)
        return FoundationLoss.of(entropy, logits=logits, codes=codes, counted=counted, features=features)

    def _predict(self, batch: FoundationBatch, choice: Choice) -> LatentPrediction:
        prompts = self._prompts(batch)
        decoded = decode_codes(self._decoder(prompts, batch), choice, num_codes=self.spec.num_codes)
        return LatentPrediction(decoded.codes, decoded.log_probs, PromptFeatures(decoded.prompt_hidden, prompts.mask))

    def _sample(self, batch: FoundationBatch, num_samples: int, choice: Choice) -> LatentCandidates:
        decoder = self._decoder(self._prompts(batch), batch)
        decoded = decode_codes(decoder, choice, num_codes=self.spec.num_codes, num_samples=num_samples)
        return _candidates(decoded, len(batch))

    def _beam_search(self, batch: FoundationBatch, beams: int) -> LatentCandidates:
        decoder = self._decoder(self._prompts(batch), batch)
        return _candidates(beam_search(decoder, num_codes=self.spec.num_codes, beams=beams), len(batch))

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
        self, prompts: Prompts, vision: dict[str, Tensor], answer: Int[Tensor, "b p"]
    ) -> Float[Tensor, "b z d"]:
        ids, positions, mask = with_answer(prompts, answer)
        output = self.model.model(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False, **vision)
        return output.last_hidden_state

    def _prompts(self, batch: FoundationBatch) -> Prompts:
        return self.prompt_tokenizer(batch.instructions, num_cameras=batch.images.shape[1], device=self.code_ids.device)

    def _vision(self, batch: FoundationBatch) -> dict[str, Tensor]:
        images = self.images(batch)
        return {
            "pixel_values": build_pixel_values(images, self.geometry),
            "image_grid_thw": self.geometry.grid(len(images)),
        }

    def _code_rows(self) -> Float[Tensor, "k d"]:
        return output_rows(self.model.lm_head, self.code_ids)


def _candidates(decoded: Decoded, batch_size: int) -> LatentCandidates:
    codes, log_probs = (
        rearrange(rows, "(b x) q -> b x q", b=batch_size) for rows in (decoded.codes, decoded.log_probs)
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
