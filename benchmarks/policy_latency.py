"""Latency of HLRP's policies and of LeRobot's diffusion policy, SmolVLA and ACT.

Weights are random, since the time does not depend on them. All calls have batch size 1: one camera of 64 x 64 pixels, a
state and an action of four numbers, chunks of 16 actions of which 8 are executed. Policies are called in turn and
medians are reported, so that other work on the machine slows all policies alike.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from lerobot.configs import FeatureType, PolicyFeature, PreTrainedConfig
from lerobot.policies.factory import get_policy_class
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import OBS_IMAGE, OBS_LANGUAGE_ATTENTION_MASK, OBS_LANGUAGE_TOKENS, OBS_STATE
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration, SmolVLMModel

import lerobot_policy_felix_bundle  # noqa: F401  registers the policies
from hlrp.experts.interface import ObservationTokens
from hlrp.foundation.backends import QwenVLChatBackend, QwenVLChatConfig, SmolLatentHeadBackend, SmolLatentHeadConfig
from hlrp.foundation.backends.embedded import EmbeddedSize, embedded_size
from hlrp.foundation.backends.qwen3vl.action_tokens import add_action_tokens
from hlrp.foundation.backends.qwen3vl.embedded_model import tiny_processor, tiny_qwen3vl_config
from hlrp.foundation.backends.smolvlm.embedded_model import tiny_smol_processor, tiny_smolvlm_config
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.processor_parts import tokenizer_of
from hlrp.latents import LatentSpec
from hlrp.report.saving import save_foundation
from hlrp.runtime.tables import table

_SIDE = 64
_INSTRUCTION = "Open a door with a revolving joint"
_CHUNK, _EXECUTED = 16, 8
_DENOISING_STEPS = 10
"""Denoising steps of the flow-matching experts and of DDIM, which is SmolVLA's default."""
_EXPERT_SHARE = 0.75
"""Width of the action expert over that of the language model: SmolVLA's default, used for our expert too."""
_WARM_UP = 3
"""Number of first rounds that are not counted."""

_LARGE = {
    "vision_width": 192,
    "vision_depth": 4,
    "vision_heads": 4,
    "text_width": 384,
    "text_depth": 8,
    "text_heads": 6,
}
"""Size of a VLM with about as many parameters as LeRobot's diffusion policy with a ResNet-18, or LeRobot's ACT."""
SIZES: dict[str, EmbeddedSize] = {"": EmbeddedSize(**_LARGE), "_demo": embedded_size("demo")}
"""Sizes of the VLMs by the ending of a policy's name: a large one, and the embedded one that `success` trains."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A policy and its inputs."""

    policy: PreTrainedPolicy
    chunk_batch: dict[str, Any]
    """Input of `predict_action_chunk`."""
    step_batch: dict[str, Any]
    """Input of `select_action`."""
    bare: Callable[[], object] | None = None
    """Call of the policy's networks alone, on prepared tensors, that computes the same chunk; None if not measured."""


def run(*, repeats: int) -> dict[str, Any]:
    """Measure the latency of every policy, in milliseconds, as the module's docstring describes."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as scratch:
        entries = make_entries(Path(scratch))
    times = {name: {"chunk": [], "actions": [], "bare": []} for name in entries}
    for turn in range(_WARM_UP + repeats):
        for name, entry in entries.items():
            spent = _one_round(entry, bare_first=turn % 2 == 1)
            if turn >= _WARM_UP:
                for what, seconds in spent.items():
                    times[name][what].append(seconds)
    return {name: _figures(entry.policy, times[name]) for name, entry in entries.items()}


@torch.no_grad()
def _one_round(entry: Entry, *, bare_first: bool) -> dict[str, float]:
    """Return the seconds of a chunk, of the bare networks if known, and of all actions executed from one chunk.

    The first call is slower, since the processor's cache still holds the weights of another policy; so chunk and bare
    networks come first by turns.
    """
    policy = entry.policy
    policy.reset()
    calls: dict[str, Callable[[], object]] = {"chunk": lambda: policy.predict_action_chunk(dict(entry.chunk_batch))}
    if entry.bare is not None:
        calls = {"bare": entry.bare, **calls} if bare_first else {**calls, "bare": entry.bare}
    spent = {what: _seconds(call) for what, call in calls.items()}
    policy.reset()
    spent["actions"] = _seconds(lambda: [policy.select_action(dict(entry.step_batch)) for _ in range(_EXECUTED)])
    return spent


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _figures(policy: PreTrainedPolicy, times: Mapping[str, list[float]]) -> dict[str, Any]:
    found = {
        "select_action_ms": 1000 * median(times["actions"]) / _EXECUTED,
        "chunk_ms": 1000 * median(times["chunk"]),
        "parameters": sum(parameter.numel() for parameter in policy.parameters()),
        "threads": torch.get_num_threads(),
    }
    if times["bare"]:
        found["bare_ms"] = 1000 * median(times["bare"])
        # Ratio of calls that follow each other, so that other work on the machine slows both alike.
        found["overhead"] = median(whole / bare for whole, bare in zip(times["chunk"], times["bare"], strict=True))
    return found


def make_entries(scratch: Path, sizes: Mapping[str, EmbeddedSize] = SIZES) -> dict[str, Entry]:
    """Build all policies, on VLMs of `sizes`; the folder `scratch` is not needed afterwards."""
    entries = {}
    for ending, size in sizes.items():
        qwen = save_foundation(_qwen(size), scratch / f"qwen{ending}", laq_fingerprint="")
        smol_backend = _smol(size)
        smol = save_foundation(smol_backend, scratch / f"smol{ending}", laq_fingerprint="")
        smol_backend.save_assets(scratch / f"smolvla{ending}")
        expert = {
            "expert_width": int(_EXPERT_SHARE * size.text_width),
            # One of our blocks has self-attention and cross-attention; SmolVLA's layers have one of them in turn.
            "expert_layers": size.text_depth // 2,
            "expert_heads": size.text_heads,
            "num_denoising_steps": _DENOISING_STEPS,
        }
        entries |= {
            f"hlrp_vla_direct{ending}": _vla_direct(qwen),
            f"hlrp_action_expert_latent{ending}": _expert_latent(qwen),
            f"hlrp_action_expert_direct{ending}": _expert_direct(qwen, expert),
            f"hlrp_action_expert_direct_smol{ending}": _expert_direct(smol, expert),
            f"smolvla{ending}": _smolvla(scratch / f"smolvla{ending}"),
        }
    return entries | {"diffusion": _diffusion(), "diffusion_ddim10": _diffusion(10), "act": _act()}


def _qwen(size: EmbeddedSize) -> QwenVLChatBackend:
    config, spec = QwenVLChatConfig(image_size=(_SIDE, _SIDE)), LatentSpec()
    processor = tiny_processor(size, config.image_size)
    add_action_tokens(tokenizer_of(processor), config.tokens, spec.codebook_size)
    architecture = tiny_qwen3vl_config(size, processor, config.image_size)
    return QwenVLChatBackend(config, spec, Qwen3VLForConditionalGeneration(architecture), processor)


def _smol(size: EmbeddedSize) -> SmolLatentHeadBackend:
    config = SmolLatentHeadConfig(image_size=(_SIDE, _SIDE))
    processor = tiny_smol_processor()
    model = SmolVLMModel(tiny_smolvlm_config(size, processor, config.image_size))
    return SmolLatentHeadBackend(config, LatentSpec(), model, processor)


def _policy(kind: str, **settings: Any) -> Any:
    config = PreTrainedConfig.get_choice_class(kind)(
        device="cpu",
        n_action_steps=_EXECUTED,
        input_features={
            OBS_IMAGE: PolicyFeature(type=FeatureType.VISUAL, shape=(3, _SIDE, _SIDE)),
            OBS_STATE: PolicyFeature(type=FeatureType.STATE, shape=(4,)),
        },
        output_features={"action": PolicyFeature(type=FeatureType.ACTION, shape=(4,))},
        **settings,
    )
    return get_policy_class(kind)(config).eval()


def _observation() -> dict[str, Any]:
    return {OBS_IMAGE: torch.rand(1, 3, _SIDE, _SIDE), OBS_STATE: torch.randn(1, 4), "task": [_INSTRUCTION]}


def _vla_inputs(observation: Mapping[str, Any]) -> FoundationBatch:
    return FoundationBatch(observation[OBS_IMAGE][:, None], observation["task"])


def _vla_direct(foundation: Path) -> Entry:
    policy = _policy("hlrp_vla_direct", chunk_size=_CHUNK, vla_checkpoint_path=str(foundation))
    observation = _observation()
    inputs, state = _vla_inputs(observation), observation[OBS_STATE]

    def bare() -> torch.Tensor:
        return policy.decoder(policy.backend.predict(inputs).codes, state)

    return Entry(policy=policy, chunk_batch=observation, step_batch=observation, bare=bare)


def _expert_latent(foundation: Path) -> Entry:
    policy = _policy(
        "hlrp_action_expert_latent",
        chunk_size=_CHUNK,
        vla_checkpoint_path=str(foundation),
        num_inference_steps=_DENOISING_STEPS,
    )
    observation = _observation()
    inputs, state = _vla_inputs(observation), observation[OBS_STATE]

    def bare() -> torch.Tensor:
        codes = policy.codes(policy.backend.predict(inputs).codes)
        features = policy.image_encoders[0](observation[OBS_IMAGE])
        return policy.expert.act(ObservationTokens(features[:, None]), codes, state)

    return Entry(policy=policy, chunk_batch=observation, step_batch=observation, bare=bare)


def _expert_direct(foundation: Path, expert: Mapping[str, Any]) -> Entry:
    policy = _policy("hlrp_action_expert_direct", chunk_size=_CHUNK, vla_checkpoint_path=str(foundation), **expert)
    observation = _observation()
    inputs, state = _vla_inputs(observation), observation[OBS_STATE]

    def bare() -> torch.Tensor:
        features = policy.backend.features(inputs)
        return policy.expert.act(ObservationTokens(features.hidden, features.mask), None, state)

    return Entry(policy=policy, chunk_batch=observation, step_batch=observation, bare=bare)


def _smolvla(assets: Path) -> Entry:
    """Build SmolVLA on the VLM in `assets`; SmolVLA's special tokens are added to the tokenizer there."""
    settings = assets / "tokenizer_config.json"
    names = {"fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>"}
    known = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps({**known, "extra_special_tokens": names}), encoding="utf-8")
    policy = _policy(
        "smolvla",
        chunk_size=_CHUNK,
        vlm_model_name=str(assets),
        load_vlm_weights=False,
        num_vlm_layers=-1,  # all there are
        resize_imgs_with_padding=(_SIDE, _SIDE),
        expert_width_multiplier=_EXPERT_SHARE,
        num_steps=_DENOISING_STEPS,
    )
    words = AutoTokenizer.from_pretrained(assets)(f"{_INSTRUCTION}\n", return_tensors="pt")
    observation = {
        **_observation(),
        OBS_LANGUAGE_TOKENS: words["input_ids"],
        OBS_LANGUAGE_ATTENTION_MASK: words["attention_mask"].bool(),
    }
    return Entry(policy=policy, chunk_batch=observation, step_batch=observation)


def _diffusion(ddim_steps: int | None = None) -> Entry:
    """Build LeRobot's diffusion policy, with its default scheduler or with `ddim_steps` DDIM steps."""
    scheduler = {} if ddim_steps is None else {"noise_scheduler_type": "DDIM", "num_inference_steps": ddim_steps}
    policy = _policy(
        "diffusion",
        horizon=_CHUNK,
        pretrained_backbone_weights=None,
        crop_shape=(56, 56),
        down_dims=(64, 128, 256),
        **scheduler,
    )
    observation = _observation()
    window = {key: torch.stack([observation[key]] * policy.config.n_obs_steps, dim=1) for key in (OBS_IMAGE, OBS_STATE)}
    return Entry(policy=policy, chunk_batch=window, step_batch=observation)


def _act() -> Entry:
    policy = _policy("act", chunk_size=_CHUNK, pretrained_backbone_weights=None, dim_model=256, dim_feedforward=1024)
    observation = _observation()
    return Entry(policy=policy, chunk_batch=observation, step_batch=observation)


def aims(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the aims, each a ratio of two chunk times: its bound, the measured value, and whether the bound is met."""

    def ratio(slow: str, fast: str) -> float:
        return found[slow]["chunk_ms"] / found[fast]["chunk_ms"]

    checked = {}
    for ending in SIZES:
        ours, expert = f"hlrp_vla_direct{ending}", f"hlrp_action_expert_direct_smol{ending}"
        checked |= {
            f"diffusion, its default steps, over {ours}": _at_least(5.0, ratio("diffusion", ours)),
            f"diffusion, 10 DDIM steps, over {ours}": _at_least(5.0, ratio("diffusion_ddim10", ours)),
            f"{expert} over smolvla{ending}": _at_most(1.0, ratio(expert, f"smolvla{ending}")),
        }
    with_bare = {f"{name} over its networks": card["overhead"] for name, card in found.items() if "overhead" in card}
    return checked | {name: _at_most(1.1, overhead) for name, overhead in with_bare.items()}


def _at_least(bound: float, value: float) -> dict[str, Any]:
    return {"at_least": bound, "found": value, "met": value >= bound}


def _at_most(bound: float, value: float) -> dict[str, Any]:
    return {"at_most": bound, "found": value, "met": value <= bound}


def aim_row(name: str, aim: Mapping[str, Any]) -> list[str]:
    """Format an aim as a row of a table."""
    wanted = f"≥ {aim['at_least']:g}" if "at_least" in aim else f"≤ {aim['at_most']:g}"
    return [name, wanted, f"{aim['found']:.2f}", "met" if aim["met"] else "missed"]


def rows(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Format latencies as a table with a row for each policy."""
    return table(
        ["policy", "ms per action", "ms per chunk", "over its networks", "parameters"],
        [
            [
                name,
                f"{card['select_action_ms']:.2f}",
                f"{card['chunk_ms']:.1f}",
                f"{card['overhead'] - 1:+.1%}" if "overhead" in card else "–",
                f"{card['parameters']:,}",
            ]
            for name, card in found.items()
        ],
    )
