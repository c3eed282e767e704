"""Speed of every heavy part on one GPU, beside what the hardware allows: `python -m benchmarks.gpu_record`.

Sections: `hardware` (what a matrix product and a copy reach, as the roofline), `laq` (training steps of a LAQ of
LAPA's size on generated clips), `labels` (clips per second that quantizers label), `decoding` (codes of a Qwen3-VL of
two billion random parameters, beside one prefill and transformers' `generate`), `training` (training steps of that
model), `few_labels` (the few-labels benchmark with one labelled episode a task and networks on the GPU; left out
unless named, since it simulates on the CPU). No section downloads anything. Results with hardware and versions are in
`benchmarks/results/<GPU>.json`.

On a machine without a GPU, `--size=debug` runs the same code with tiny models in half a minute.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.foundation_decoding import BATCH, IMAGE, prefill, random_batch, random_qwen, stock_generate
from benchmarks.laq_throughput import our_step
from benchmarks.running import require_known, run_benchmark, run_command, run_sections
from benchmarks.timing import interleaved
from hlrp.commands.running import choose_device
from hlrp.foundation.backends.embedded import EmbeddedSize
from hlrp.foundation.backends.qwen3vl_chat_backend import QwenVLChatBackend
from hlrp.foundation.batch import FoundationBatch
from hlrp.laq.config import PRESETS
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentActions
from hlrp.runtime.checks import require_one_of
from hlrp.runtime.tables import table
from hlrp.training.optimization import parameter_groups

_QWEN_2B = EmbeddedSize(
    patch_size=16, vision_width=1024, vision_depth=24, vision_heads=16, text_width=2048, text_depth=28, text_heads=16,
    mlp_ratio=3,
)  # fmt: skip
"""Widths and depths of Qwen3-VL-2B, without its shared key-value heads."""
_QWEN_DEBUG = EmbeddedSize(
    patch_size=16, vision_width=32, vision_depth=1, vision_heads=2, text_width=32, text_depth=1, text_heads=2
)
_VERSIONS = ("torch", "transformers", "lightning", "lerobot", "lerobot_policy_felix_bundle")


@dataclass
class BenchConfig:
    """Measure speed on one GPU."""

    output: Path | None = None
    """JSON file of the results; default: benchmarks/results/<device>.json."""
    sections: list[str] = field(default_factory=lambda: ["hardware", "laq", "labels", "decoding", "training"])
    size: str = "full"
    """full: LAPA's LAQ and a VLM of two billion parameters. debug: tiny models, to see that everything runs."""
    batch_size: int = 32
    """Clips or frames per training step."""
    repeats: int = 10
    """Timed repetitions of every call; medians are reported."""
    device: str | None = None
    """Device; default: the best of this machine."""
    quick: bool = False
    """The same as --size=debug with two repetitions."""

    def __post_init__(self) -> None:
        require_one_of("size", self.size, ("full", "debug"))
        require_known("sections", self.sections, SECTIONS)
        if self.quick:
            self.size, self.repeats, self.batch_size = "debug", 2, 4
        self.device = choose_device(self.device)
        if self.output is None:
            name = re.sub(r"\W+", "_", _device_name(self.device)).strip("_").lower()
            self.output = Path("benchmarks/results") / f"{name}.json"

    @property
    def is_debug(self) -> bool:
        """Whether models are tiny."""
        return self.size == "debug"

    def autocast(self) -> AbstractContextManager[Any]:
        """Computation in bfloat16, as in training with --trainer.precision=bf16-mixed."""
        assert self.device is not None
        return (
            torch.autocast(self.device.partition(":")[0], dtype=torch.bfloat16) if not self.is_debug else nullcontext()
        )

    def seconds(self, calls: dict[str, Callable[[], object]]) -> dict[str, float]:
        """Median seconds of each call."""
        assert self.device is not None
        return interleaved(calls, repeats=self.repeats, device=self.device)


def hardware(config: BenchConfig) -> dict[str, Any]:
    """What the device reaches on a matrix product in bfloat16 and on a copy in memory: the limits of all else."""
    side = 128 if config.is_debug else 8192
    left, right = torch.randn(2, side, side, device=config.device, dtype=torch.bfloat16)
    source = torch.empty(side * side * (1 if config.is_debug else 16), device=config.device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    seconds = config.seconds({"product": lambda: left @ right, "copy": lambda: target.copy_(source)})
    return {
        "device": _device_name(config.device or "cpu"),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in _VERSIONS},
        "tflops": 2 * side**3 / seconds["product"] / 1e12,
        "memory_gb_s": 2 * source.nbytes / seconds["copy"] / 1e9,  # read and written
    }


def laq(config: BenchConfig) -> dict[str, Any]:
    """Training steps of a LAQ of LAPA's size: clips per second, share of the peak, and peak memory."""
    size = PRESETS["debug" if config.is_debug else "lapa"]()
    model = LatentActionQuantizer(size).to(config.device or "cpu")
    shape = (config.batch_size, size.spec.num_frames, 1, 3, *size.image_size)
    step = our_step(model, torch.randint(0, 256, shape, dtype=torch.uint8, device=config.device))

    def cast() -> None:
        with config.autocast():
            step()

    return _training_figures(config, cast, sum(p.numel() for p in model.parameters()))


def labels(config: BenchConfig) -> dict[str, Any]:
    """Clips per second that a quantizer encodes from frames on the device; labels are computed in float32."""
    rates = {}
    for preset in ("debug",) if config.is_debug else ("small", "base", "lapa"):
        size = PRESETS[preset]()
        model = LatentActionQuantizer(size).to(config.device or "cpu").eval()
        count = 8 * config.batch_size
        shape = (count, size.spec.num_frames, 1, 3, *size.image_size)
        clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=config.device)
        rates[preset] = (
            count / config.seconds({"encode": lambda model=model, clips=clips: model.encode(clips)})["encode"]
        )
    return {"clips_per_second": rates}


def decoding(config: BenchConfig) -> dict[str, Any]:
    """Codes of a VLM with random weights, beside one prefill and transformers' `generate`."""
    dtype = torch.float32 if config.is_debug else torch.bfloat16
    backend = _random_vlm(config, dtype).eval()
    batch = random_batch(BATCH, IMAGE, seed=0, tokens=20).to(config.device or "cpu")
    with torch.no_grad():
        seconds = config.seconds(
            {
                "prefill": lambda: prefill(backend, batch),
                "generate": lambda: stock_generate(backend, batch),
                "ours": lambda: backend.predict(batch),
            }
        )
    weights = sum(p.nbytes for p in backend.parameters())
    return {
        **{f"{name}_s": value for name, value in seconds.items()},
        "ours_over_prefill": seconds["ours"] / seconds["prefill"],
        "generate_over_ours": seconds["generate"] / seconds["ours"],
        "parameters": sum(p.numel() for p in backend.parameters()),
        "weights_gb": weights / 1e9,
    }


def training(config: BenchConfig) -> dict[str, Any]:
    """Training steps of a VLM with random weights in bf16-mixed: frames per second, share of the peak, peak memory."""
    backend = _random_vlm(config, torch.float32).train()
    frames = random_batch(config.batch_size, IMAGE, seed=0)
    codes = torch.randint(backend.spec.codebook_size, (config.batch_size, backend.spec.num_codes))
    batch = replace(frames, labels=LatentActions.of_codes(codes)).to(config.device or "cpu")
    assert isinstance(batch, FoundationBatch)
    optimizer = torch.optim.AdamW(parameter_groups(backend, 0.05), lr=1e-5)

    def step() -> None:
        with config.autocast():
            loss = backend.loss(batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return _training_figures(config, step, sum(p.numel() for p in backend.parameters()))


def _random_vlm(config: BenchConfig, dtype: torch.dtype) -> QwenVLChatBackend:
    """VLM with random weights, initialized on the device: on one CPU core, two billion take most of a minute."""
    assert config.device is not None
    with torch.device(config.device):
        return random_qwen(_QWEN_DEBUG if config.is_debug else _QWEN_2B, dtype=dtype).to(config.device)


def few_labels(config: BenchConfig) -> dict[str, Any]:
    """The few-labels benchmark with one labelled episode a task, networks on the device and a job for every core."""
    output = Path("outputs/benchmarks/few_labels_gpu.json")
    workers = max((os.cpu_count() or 1) - 1, 1)
    flags = [f"--output={output}", "--budgets=[1]", "--worlds=[clean]", f"--device={config.device}"]
    run_command("benchmarks.few_labels", *flags, f"--workers={workers}", log=output.with_suffix(".log"))
    return json.loads(output.read_text(encoding="utf-8"))


def _training_figures(config: BenchConfig, step: Callable[[], object], parameters: int) -> dict[str, Any]:
    with FlopCounterMode(display=False) as counter:
        step()
    flops = counter.get_total_flops()
    on_gpu = (config.device or "cpu").startswith("cuda")
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = config.seconds({"step": step})["step"]
    return {
        "batch_size": config.batch_size,
        "seconds_per_step": seconds,
        "samples_per_second": config.batch_size / seconds,
        "tflops": flops / seconds / 1e12,
        "parameters": parameters,
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
    }


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


SECTIONS: dict[str, Callable[[BenchConfig], dict[str, Any]]] = {
    "hardware": hardware,
    "laq": laq,
    "labels": labels,
    "decoding": decoding,
    "training": training,
    "few_labels": few_labels,
}


def main(config: BenchConfig) -> None:
    """Run the sections one after the other, and print what they reach of the hardware's peak."""
    assert config.output is not None
    run_sections(config.sections, SECTIONS, config, config.output, keys={}, quick=config.is_debug)
    print(summary(json.loads(config.output.read_text(encoding="utf-8"))))


def summary(results: dict[str, Any]) -> str:
    """Table of the training steps, with the share of the matrix product's speed that they reach."""
    peak = results.get("hardware", {}).get("tflops")
    rows = []
    for name in ("laq", "training"):
        if name in results:
            found = results[name]
            share = "–" if peak is None else f"{found['tflops'] / peak:.0%}"
            memory = found["peak_memory_gib"]
            rows.append(
                [
                    name,
                    f"{found['parameters'] / 1e6:.1f} M",
                    f"{found['samples_per_second']:.1f}",
                    f"{found['tflops']:.2f}",
                    share,
                    "–" if memory is None else f"{memory:.1f} GiB",
                ]
            )
    return table(["step", "parameters", "samples/s", "TFLOP/s", "of the peak", "memory"], rows)


if __name__ == "__main__":
    run_benchmark(BenchConfig, main)
