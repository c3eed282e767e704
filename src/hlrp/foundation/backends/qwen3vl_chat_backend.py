"""A Qwen3-VL chat model that answers an image and an instruction with action tokens.

The same code runs a hub model (`nvidia/Cosmos-Reason2-2B`), a local folder, or a small model built offline.
Shapes: b batch, v cameras, l prompt tokens, a answer tokens, t = l+a, s codes, k entries, d width.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    AutoProcessor,
    PreTrainedTokenizerBase,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
)
from transformers.initialization import no_init_weights

from hlrp.foundation.action_tokens import ActionTokens
from hlrp.foundation.augment import random_shift
from hlrp.foundation.backends.interfaces import (
    FoundationBackend,
    FoundationLoss,
    LatentPrediction,
    PromptFeatures,
)
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.constrained_decode import decode_codes, with_answer
from hlrp.foundation.image_inputs import ImageGeometry, build_pixel_values
from hlrp.foundation.processor_parts import chat_template_of, image_processor_of, tokenizer_of
from hlrp.foundation.prompt_inputs import Prompts, PromptTokenizer
from hlrp.foundation.tiny import tiny_processor, tiny_qwen3vl_config, tiny_size
from hlrp.foundation.trainable_rows import EmbeddingWithRows, HeadWithRows, output_rows
from hlrp.foundation.uniform_vision import use_uniform_vision
from hlrp.latents import LatentSpec

_CHAT_TEMPLATE_FILE = "chat_template.json"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LOSSES = ("codes", "vocabulary")


@dataclass(frozen=True, kw_only=True)
class QwenVLChatConfig:
    """Which Qwen3-VL, what it is shown and what it learns from."""

    model_name: str | None = None
    """Hub name or local folder of a Qwen3-VL chat model; None builds an embedded small one, offline."""
    embedded_size: str = "demo"
    """Size of the embedded model where model_name is None: demo or debug."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width every image is resized to, in pixels; multiples of patch size times merge size."""
    system_prompt: str = "You are a robot policy. Reply only with action tokens."
    """Opens every conversation; empty leaves the system turn to the chat template."""
    tokens: ActionTokens = field(default_factory=ActionTokens)
    """Spelling of the action tokens."""
    attn_implementation: str = "sdpa"
    """Attention implementation of transformers: sdpa, eager or flash_attention_2."""
    dtype: str = "float32"
    """Type of the weights: float32, bfloat16 or float16."""
    freeze_backbone: bool = False
    """Train only the vocabulary rows of the action tokens."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    loss_over: str = "codes"
    """codes compares the k codes of each slot; vocabulary is the language-model loss on the whole answer."""
    random_shift_px: int = 0
    """In training, shift every image by up to this many pixels along each axis, before resizing."""

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(_DTYPES)}, got {self.dtype!r}")
        if self.loss_over not in _LOSSES:
            raise ValueError(f"loss_over must be one of {', '.join(_LOSSES)}, got {self.loss_over!r}")
        if self.random_shift_px < 0:
            raise ValueError(f"random_shift_px must be 0 or more, got {self.random_shift_px}")
        if self.model_name is None:
            tiny_size(self.embedded_size)


class QwenVLChatBackend(FoundationBackend):
    """Latent codes as the answer of a Qwen3-VL chat model."""

    backend_type: ClassVar[str] = "qwen3vl_chat"
    code_ids: Int[Tensor, " k"]
    draws: Int[Tensor, ""]

    def __init__(
        self,
        config: QwenVLChatConfig,
        spec: LatentSpec,
        model: Qwen3VLForConditionalGeneration,
        processor: Qwen3VLProcessor,
    ) -> None:
        """Wrap a model whose vocabulary already holds the action tokens; see `build` and `from_assets`."""
        super().__init__()
        self.config = config
        self.spec = spec
        self.model = model
        self.processor = processor
        self.tokens = config.tokens.add_to(tokenizer_of(processor), spec.codebook_size)
        self.geometry = ImageGeometry.of(image_processor_of(processor), config.image_size)
        self.prompt_tokenizer = PromptTokenizer(
            processor, self.geometry, model.model.get_rope_index, system_prompt=config.system_prompt
        )
        # Counts the batches augmented so far: saved, so that a resumed run goes on with the next one.
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))
        self.register_buffer("code_ids", torch.tensor(self.tokens.codes), persistent=False)
        use_uniform_vision(model.model.visual)
        if config.freeze_backbone:
            _freeze_all_but_rows(model, self.tokens.added)
        if config.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})

    @classmethod
    def build(cls, config: QwenVLChatConfig, spec: LatentSpec) -> QwenVLChatBackend:
        """A model to start training from: pretrained where `model_name` says so, else small and random.

        Raises:
            ValueError: If the image size does not fit the model.
            OSError: If `model_name` cannot be found.
        """
        if config.model_name is None:
            size = tiny_size(config.embedded_size)
            processor = tiny_processor(size, config.image_size)
            config.tokens.add_to(tokenizer_of(processor), spec.codebook_size)
            return cls(
                config,
                spec,
                _from_config(config, tiny_qwen3vl_config(size, processor, config.image_size)),
                processor,
            )
        processor = AutoProcessor.from_pretrained(config.model_name)
        if not isinstance(processor, Qwen3VLProcessor):
            raise ValueError(
                f"{config.model_name} has a {type(processor).__name__}, expected a Qwen3VLProcessor; "
                "name a Qwen3-VL chat model"
            )
        model = Qwen3VLForConditionalGeneration.from_pretrained(
            config.model_name, dtype=_DTYPES[config.dtype], attn_implementation=config.attn_implementation
        )
        known = set(tokenizer_of(processor).get_vocab().values())
        tokens = config.tokens.add_to(tokenizer_of(processor), spec.codebook_size)
        _add_vocabulary(model, [token for token in tokens.added if token not in known])
        return cls(config, spec, model, processor)

    @classmethod
    def from_assets(cls, directory: Path, *, config: Mapping[str, Any], spec: LatentSpec) -> QwenVLChatBackend:
        if not (directory / "config.json").is_file():
            raise FileNotFoundError(f"{directory} has no config.json; expected the assets of a saved foundation model")
        processor = AutoProcessor.from_pretrained(directory, local_files_only=True)
        tokenizer_of(processor).init_kwargs.pop("is_local", None)  # a trace of this loading, not of the tokenizer
        model_config = Qwen3VLConfig.from_pretrained(directory, local_files_only=True)
        own_config = _config_from_dict(config)
        with no_init_weights():  # every weight is about to be loaded, strictly
            model = _from_config(own_config, model_config)
        model.tie_weights()
        return cls(own_config, spec, model, processor)

    def save_assets(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.model.config.save_pretrained(directory)
        # Not processor.save_pretrained, which writes a .jinja file that a hub push leaves behind.
        self.processor.to_json_file(directory / "processor_config.json")
        with _without_chat_template(tokenizer_of(self.processor)) as tokenizer:
            tokenizer.save_pretrained(directory)
        template = json.dumps({"chat_template": chat_template_of(self.processor)}, indent=2)
        (directory / _CHAT_TEMPLATE_FILE).write_text(template, encoding="utf-8")

    def config_dict(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self.config)))

    @property
    def feature_dim(self) -> int:
        return self.model.config.get_text_config().hidden_size

    def loss(self, batch: FoundationBatch) -> FoundationLoss:
        if batch.codes is None:
            raise ValueError("the batch has no codes to learn from; label the dataset or pass codes")
        if batch.codes.shape != (len(batch), self.spec.num_codes):
            raise ValueError(
                f"codes must be ({len(batch)}, {self.spec.num_codes}), got {tuple(batch.codes.shape)}; "
                "use labels of the LAQ this model was built for"
            )
        counted = (batch.codes >= 0).all(1)
        if batch.valid is not None:
            counted = counted & batch.valid
        codes = batch.codes.clamp_min(0)  # a stand-in where there is no label: masked below
        answer = self.tokens.answer(codes)
        whole_answer = self.config.loss_over == "vocabulary"
        # Only what predicts something is fed: up to the last code but one, or up to the closing token.
        prompts = self._prompts(batch)
        hidden = self._hidden(prompts, self._vision(batch), answer[:, : -1 if whole_answer else -3])
        length = prompts.input_ids.shape[1]
        if whole_answer:
            scores = self.model.lm_head(hidden[:, length - 1 :]).float()  # b s+3 V
            entropy = F.cross_entropy(scores.flatten(0, 1), answer.flatten(), reduction="none").view_as(answer)
            logits = scores[:, 1:-2, self.code_ids]
        else:
            logits = F.linear(hidden[:, length:], self._code_rows()).float()
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
        generator: torch.Generator | None = None,
    ) -> LatentPrediction:
        prompts = self._prompts(batch)
        with _evaluating(self):
            decoded = decode_codes(
                self.model.model,
                prompts,
                self._vision(batch),
                start_id=self.tokens.start,
                code_ids=self.code_ids,
                code_rows=self._code_rows(),
                num_codes=self.spec.num_codes,
                temperature=temperature,
                generator=generator,
            )
        return LatentPrediction(decoded.codes, decoded.log_probs, PromptFeatures(decoded.prompt_hidden, prompts.mask))

    def features(self, batch: FoundationBatch) -> PromptFeatures:
        prompts = self._prompts(batch)
        nothing = prompts.input_ids[:, :0]
        return PromptFeatures(self._hidden(prompts, self._vision(batch), nothing), prompts.mask)

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
            images = random_shift(images, self.config.random_shift_px, draw=self.draws)
            self.draws += 1
        pixels = build_pixel_values(images, self.geometry)
        return {"pixel_values": pixels, "image_grid_thw": self.geometry.grid(len(images))}

    def _code_rows(self) -> Float[Tensor, "k d"]:
        return output_rows(self.model.lm_head, self.code_ids)


def _from_config(config: QwenVLChatConfig, model_config: Qwen3VLConfig) -> Qwen3VLForConditionalGeneration:
    return Qwen3VLForConditionalGeneration._from_config(
        model_config, attn_implementation=config.attn_implementation, dtype=_DTYPES[config.dtype]
    )


def _config_from_dict(values: Mapping[str, Any]) -> QwenVLChatConfig:
    """Inverse of `config_dict`: JSON knows neither tuples nor dataclasses."""
    height, width = values["image_size"]
    return QwenVLChatConfig(**{**values, "tokens": ActionTokens(**values["tokens"]), "image_size": (height, width)})


@torch.no_grad()
def _add_vocabulary(model: Qwen3VLForConditionalGeneration, new_ids: list[int]) -> None:
    """Make room for `new_ids` and start their rows at the mean of the known ones, plus a little noise.

    Hub models often keep spare rows past their tokenizer's end, so there may be nothing to enlarge.
    """
    if not new_ids:
        return
    if max(new_ids) >= len(_embedding(model).weight):
        model.resize_token_embeddings(max(new_ids) + 1, mean_resizing=False)
    matrices = {id(matrix): matrix for matrix in (_embedding(model).weight, model.lm_head.weight)}  # tied: one
    for matrix in matrices.values():
        known = matrix[: min(new_ids)].float()
        noise = torch.randn(len(new_ids), matrix.shape[1], device=matrix.device)
        matrix[new_ids] = (known.mean(0) + 0.1 * known.std(0) * noise).to(matrix.dtype)


def _embedding(model: Qwen3VLForConditionalGeneration) -> nn.Embedding:
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding


def _freeze_all_but_rows(model: Qwen3VLForConditionalGeneration, ids: tuple[int, ...]) -> None:
    """Freeze `model` and lay trainable rows over the vocabulary at `ids`."""
    model.requires_grad_(False)
    embedding, head = _embedding(model), model.lm_head
    input_rows = nn.Parameter(embedding.weight[list(ids)].detach().clone())
    is_tied = head.weight is embedding.weight
    head_rows = input_rows if is_tied else nn.Parameter(head.weight[list(ids)].detach().clone())
    model.set_input_embeddings(EmbeddingWithRows(embedding, ids, input_rows))
    model.lm_head = HeadWithRows(head, ids, head_rows)  # pyright: ignore[reportAttributeAccessIssue]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while: gradient checkpointing would drop the key-value cache."""
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


@contextmanager
def _without_chat_template(tokenizer: PreTrainedTokenizerBase) -> Iterator[PreTrainedTokenizerBase]:
    """The template travels with the processor, once."""
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        yield tokenizer
    finally:
        tokenizer.chat_template = template
