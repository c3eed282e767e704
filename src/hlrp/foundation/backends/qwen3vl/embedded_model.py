"""A small Qwen3-VL for laptops, built offline: configuration, tokenizer, chat template and processor.

The classes are those of transformers; only sizes and vocabulary are defined here. The tokenizer is a byte-level BPE,
trained in milliseconds on the sentences below: it encodes any text, and common instructions take few tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLImageProcessor,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)

from hlrp.foundation.processor_parts import tokenizer_of

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Special tokens under the names that Qwen's templates and processors require."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role + '\\n' }}"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}<|im_end|>{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>{{ 'assistant\\n' }}{% endif %}"
)
"""Qwen's conversation format, for messages whose content is a list of images and texts."""

_CORPUS = """
system user assistant
You are a robot policy. Reply only with action tokens.
Press the button from the top
Press a button on the wall
Push the button of the coffee machine
Open the drawer
Open a door with a revolving joint
Open the window
Close the drawer
Close the door
Close a box with its cover
Close the window
Pick up the object and place it in the box
Pick up the red cube
Pick and place the puck onto the shelf
Pick a nut out of a peg
Place the blue block on the green plate
Place the cup on the table
Put the bowl into the sink
Put the apple in the basket
Put the spoon next to the fork
Reach the goal position
Push the puck to the goal
Push and close a drawer
Push and open the window
Pull the handle up
Pull the lever down 90 degrees
Pull a mug from the coffee machine
Press the handle down sideways
Rotate the dial 180 degrees
Rotate the faucet clockwise
Rotate the faucet counter-clockwise
Turn the knob to the left
Turn on the stove
Turn off the light
Lock the door by rotating the lock clockwise
Unlock the door by rotating the lock counter-clockwise
Insert the peg into the hole
Insert a plug sideways
Insert the gripper into a hole
Unplug the charger from the socket
Hammer the screw on the wall
Kick the soccer ball into the goal
Dunk the basketball into the basket
Sweep the puck into the hole
Sweep the crumbs off the table
Slide the plate into the cabinet
Get a plate from the cabinet sideways
Grasp the stick and push the box using the stick
Grasp the puck from one bin and place it into another bin
Grasp a cover and close the box with it
Bypass the wall and reach a goal
Bypass a wall and press a button from the top
Fold the towel in half
Fold the shirt
Stack the yellow block on top of the orange block
Stack the cups
Move the arm to the right
Move the gripper above the cube
Lift the lid of the pot
Pour water from the bottle into the glass
Wipe the table with a cloth
Hand the tool to the person
Assemble the round nut on the square peg
Transfer the cube from the left arm to the right arm
""".strip()


@dataclass(frozen=True, kw_only=True)
class TinySize:
    """Sizes of a small Qwen3-VL."""

    patch_size: int = 8
    """Side of one image patch, in pixels."""
    merge_size: int = 2
    """Patches per side merged into one language-model token."""
    vision_width: int
    """Width of the vision tower."""
    vision_depth: int
    """Blocks of the vision tower."""
    vision_heads: int
    """Attention heads of the vision tower."""
    text_width: int
    """Width of the language model."""
    text_depth: int
    """Layers of the language model."""
    text_heads: int
    """Attention heads of the language model."""
    mlp_ratio: int = 2
    """Width of the feed-forward layers as a multiple of the model's width."""
    deepstack: tuple[int, ...] = ()
    """Vision blocks whose features are also added to the first language-model layers."""
    initializer_range: float = 0.02
    """Standard deviation of the initial weights."""


def debug_size() -> TinySize:
    """The smallest model that has every part: for tests and first runs."""
    return TinySize(
        vision_width=32,
        vision_depth=1,
        vision_heads=2,
        text_width=32,
        text_depth=1,
        text_heads=2,
        deepstack=(0,),
    )


def demo_size() -> TinySize:
    """The size with the best code accuracy per second of training on a two-core CPU, on 64 x 64 images.

    On four Meta-World tasks this size was the most accurate after 45 seconds on one core; wider and deeper models take
    fewer steps in that time. With two language layers, the least that suffices, an answer token can attend to the
    instruction first and then to the image.
    """
    return TinySize(
        vision_width=64,
        vision_depth=2,
        vision_heads=2,
        text_width=64,
        text_depth=2,
        text_heads=2,
        initializer_range=0.06,
    )


def tiny_size(name: str) -> TinySize:
    """The embedded size called `name`.

    Raises:
        ValueError: If there is no such size.
    """
    sizes = {"debug": debug_size, "demo": demo_size}
    if name not in sizes:
        raise ValueError(f"embedded_size must be one of {', '.join(sizes)}, got {name!r}")
    return sizes[name]()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE tokenizer trained on the embedded sentences; identical on every machine."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=list(SPECIAL_TOKENS),
        show_progress=False,
    )
    sentences = _CORPUS.splitlines()
    lower_case = [sentence.lower() for sentence in sentences]
    tokenizer.train_from_iterator([*sentences, *lower_case], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def tiny_processor(size: TinySize, image_size: tuple[int, int]) -> Qwen3VLProcessor:
    """Qwen3-VL processor for still images of `image_size` (height, width), in pixels."""
    pixels = image_size[0] * image_size[1]
    images = Qwen2VLImageProcessor(
        patch_size=size.patch_size,
        merge_size=size.merge_size,
        temporal_patch_size=1,
        min_pixels=pixels,
        max_pixels=pixels,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    # The processor's constructor requires a video processor, which is never used here.
    videos = Qwen3VLVideoProcessor(patch_size=size.patch_size, merge_size=size.merge_size, temporal_patch_size=1)
    return Qwen3VLProcessor(images, tiny_tokenizer(), videos, chat_template=CHAT_TEMPLATE)


def tiny_qwen3vl_config(size: TinySize, processor: Qwen3VLProcessor, image_size: tuple[int, int]) -> Qwen3VLConfig:
    """Configuration of a Qwen3-VL of `size` over the vocabulary of `processor`, action tokens included."""
    tokenizer = tokenizer_of(processor)
    # The position table is square; the vision tower interpolates it to the patch grid of an image.
    side = max(image_size) // size.patch_size
    head_dim = size.text_width // size.text_heads
    third = head_dim // 6  # rotary frequencies come in pairs and are shared by time, height and width
    vision = {
        "depth": size.vision_depth,
        "hidden_size": size.vision_width,
        "intermediate_size": size.mlp_ratio * size.vision_width,
        "num_heads": size.vision_heads,
        "patch_size": size.patch_size,
        "spatial_merge_size": size.merge_size,
        "temporal_patch_size": 1,
        "out_hidden_size": size.text_width,
        "num_position_embeddings": side**2,
        "deepstack_visual_indexes": list(size.deepstack),
        "initializer_range": size.initializer_range,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": size.text_width,
        "intermediate_size": size.mlp_ratio * size.text_width,
        "num_hidden_layers": size.text_depth,
        "num_attention_heads": size.text_heads,
        "num_key_value_heads": size.text_heads,
        "head_dim": head_dim,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "mrope_section": [head_dim // 2 - 2 * third, third, third],
            "mrope_interleaved": True,
        },
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": size.initializer_range,
    }
    return Qwen3VLConfig.from_dict(
        {
            "vision_config": vision,
            "text_config": text,
            "image_token_id": processor.image_token_id,
            "video_token_id": processor.video_token_id,
            "vision_start_token_id": processor.vision_start_token_id,
            "vision_end_token_id": processor.vision_end_token_id,
            "tie_word_embeddings": True,
        }
    )
