"""What the small offline models of all families share: their sizes, and a tokenizer.

The tokenizer is a byte-level BPE, trained in milliseconds on the sentences below: it encodes any text, and common
instructions take few tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from hlrp.runtime.checks import require_one_of

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
"""Special tokens under the names that Qwen's templates and processors require; other families add their own."""

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
class EmbeddedSize:
    """Sizes of a small vision-language model."""

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
    initializer_range: float = 0.02
    """Standard deviation of the initial weights."""


_SIZES = {
    "debug": EmbeddedSize(vision_width=32, vision_depth=1, vision_heads=2, text_width=32, text_depth=1, text_heads=2),
    "demo": EmbeddedSize(
        vision_width=64,
        vision_depth=2,
        vision_heads=2,
        text_width=64,
        text_depth=2,
        text_heads=2,
        initializer_range=0.06,
    ),
}
"""Sizes by name. debug: the smallest model that has every part, for tests and first runs. demo: the size with the best
code accuracy per second of training on a two-core CPU, on 64 x 64 images. On four Meta-World tasks a Qwen3-VL of this
size was the most accurate after 45 seconds on one core; wider and deeper models take fewer steps in that time. With two
language layers, the least that suffices, an answer token can attend to the instruction first and then to the image."""


def embedded_size(name: str) -> EmbeddedSize:
    """The embedded size called `name`.

    Raises:
        ValueError: If there is no such size.
    """
    require_one_of("embedded_size", name, _SIZES)
    return _SIZES[name]


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


def language_settings(size: EmbeddedSize, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Settings of transformers for a language model of `size` over the vocabulary of `tokenizer`."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": size.text_width,
        "intermediate_size": size.mlp_ratio * size.text_width,
        "num_hidden_layers": size.text_depth,
        "num_attention_heads": size.text_heads,
        "num_key_value_heads": size.text_heads,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "initializer_range": size.initializer_range,
    }
