"""Training throughput of HLRP's quantizer and of LAPA's code, at equal size, batch size and data.

Both get 128-pixel clips of two frames, patches of 16 pixels (the grid of 8x8 that LAPA's convolutions are made for),
width 256, 4 heads, 4 codes of 8 per transition, and the same AdamW; one step is forward, backward and update. LAPA's
layers are larger than HLRP's (depthwise convolutions, a second attention in its decoder), so HLRP's quantizer gets the
number of layers that comes closest to LAPA's number of parameters. Steps of both alternate, so that other work on the
machine slows both alike.

    python -m benchmarks.laq_throughput --lapa_repo CLONE

LAPA's code is imported from a clone that `--lapa_repo` names; it is not part of this repository, nor downloaded.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import draccus
import torch
from jaxtyping import Float
from torch import Tensor, nn

from benchmarks.timing import interleaved
from hlrp.cli.common import run_cli
from hlrp.commands.running import choose_device
from hlrp.laq.batch import unlabelled
from hlrp.laq.config import LAQConfig
from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.objective.task import LAQTask, LAQTrainingConfig
from hlrp.laq.objective.views import altered_view
from hlrp.training.optimization import parameter_groups

SIZE, PATCH, DIM, HEADS, LAYERS = 128, 16, 256, 4, 4
_FILES = ("latent_action_quantization.py", "nsvq.py", "attention.py")
_MAX_LAYERS = 16


def run(
    lapa_repo: Path | None, *, batch_size: int = 8, repeats: int = 15, warmup: int = 3, device: str | None = None
) -> dict[str, Any]:
    """Measure the training throughput of our quantizer and of LAPA's.

    Args:
        lapa_repo: Clone of https://github.com/LatentActionPretraining/LAPA, bare or not; None measures HLRP's alone.
        batch_size: Clips per step.
        repeats: Timed steps of each.
        warmup: Steps of each before the timed steps.
        device: cpu or cuda; default: the best device of this machine.

    Returns:
        Clips per second of `ours` and `lapa` (medians), their `ratio`, and the parameters of both; None, with a `note`,
        where there is no clone.
    """
    device = choose_device(device)
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    frames = torch.randint(0, 256, (batch_size, 2, 3, SIZE, SIZE), dtype=torch.uint8, device=device)
    if lapa_repo is None:
        hlrp = LatentActionQuantizer(our_config(LAYERS)).to(device)
        steps = {"ours": our_step(hlrp, frames[:, :, None])}
        seconds = interleaved(steps, repeats=repeats, warmup=warmup, device=device)
        note = "LAPA was not measured: name a clone of its repository with lapa_repo"
        return _results(batch_size, device, seconds, hlrp, None) | {"note": note}
    with lapa_module(lapa_repo) as module, contextlib.redirect_stdout(io.StringIO()):  # its training step prints
        lapa = build_lapa(module, device)
        hlrp = LatentActionQuantizer(closest_config(count(lapa))).to(device)
        steps = {"ours": our_step(hlrp, frames[:, :, None]), "lapa": lapa_step(lapa, frames)}
        seconds = interleaved(steps, repeats=repeats, warmup=warmup, device=device)
    return _results(batch_size, device, seconds, hlrp, lapa)


def _results(
    batch_size: int, device: str, seconds: dict[str, float], hlrp: LatentActionQuantizer, lapa: nn.Module | None
) -> dict[str, Any]:
    """Return the results as JSON values; those of LAPA are None if it was not measured."""
    return {
        "device": device,
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
        "ours": batch_size / seconds["ours"],
        "lapa": None if lapa is None else batch_size / seconds["lapa"],
        "ratio": None if lapa is None else seconds["lapa"] / seconds["ours"],
        "parameters_ours": count(hlrp),
        "parameters_lapa": None if lapa is None else count(lapa),
        "encoder_layers_ours": hlrp.config.encoder_layers,
        "decoder_layers_ours": hlrp.config.decoder_layers,
    }


def our_config(encoder_layers: int, decoder_layers: int = LAYERS) -> LAQConfig:
    """Return the configuration of our LAQ with LAPA's width, patches and kind of quantizer."""
    return LAQConfig(
        image_size=(SIZE, SIZE),
        patch_size=PATCH,
        dim=DIM,
        heads=HEADS,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        quantizer="nsvq",
    )


def closest_config(parameters: int) -> LAQConfig:
    """Return our configuration whose number of parameters is closest; encoder and decoder get layers in turn."""
    sizes = [our_config(layers - layers // 2, layers // 2) for layers in range(2, 2 * _MAX_LAYERS)]
    with torch.device("meta"):  # parameters can be counted without memory for their values
        counts = [count(LatentActionQuantizer(config)) for config in sizes]
    return min(zip(sizes, counts, strict=True), key=lambda sized: abs(sized[1] - parameters))[0]


def count(module: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def our_step(model: LatentActionQuantizer, frames: Float[Tensor, "b t m c h w"] | Tensor) -> Callable[[], None]:
    """One training step, with the views and losses of `hlrp-train-laq`."""
    task = LAQTask(model, LAQTrainingConfig()).to(frames.device)
    batch = replace(unlabelled(frames.cpu()).to(frames.device), frames=frames)
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-4)
    model.train()

    def step() -> None:
        pixels = model.to_pixels(batch.frames)
        result = model(pixels, altered_view(pixels, batch.views, task.config.views))
        losses = task.losses(result, pixels[:, :-1], pixels[:, 1:], batch)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def lapa_step(model: nn.Module, frames: Tensor) -> Callable[[], None]:
    """Return a training step of LAPA's quantizer, with LAPA's loss and the same optimizer as HLRP's."""
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05), lr=1e-4)
    model.train()

    def step() -> None:
        loss, _ = model((frames.float() / 255).transpose(1, 2), step=1)  # at this step it replaces no codes
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def build_lapa(module: Any, device: str) -> nn.Module:
    """Build LAPA's quantizer at the size of this benchmark."""
    return module.LatentActionQuantization(
        dim=DIM,
        quant_dim=32,
        codebook_size=8,
        image_size=SIZE,
        patch_size=PATCH,
        spatial_depth=LAYERS,
        temporal_depth=LAYERS,
        dim_head=DIM // HEADS,
        heads=HEADS,
        code_seq_len=4,
    ).to(device)


@contextlib.contextmanager
def lapa_module(repo: Path) -> Iterator[Any]:
    """Import LAPA's quantizer from a clone, without its trainer, and forget it afterwards.

    Raises:
        ValueError: If `repo` is no clone of LAPA.
    """
    with tempfile.TemporaryDirectory() as scratch:
        package = Path(scratch) / "laq_model"
        package.mkdir()
        (package / "__init__.py").touch()  # LAPA's own __init__ imports the trainer, which needs further packages
        for name in _FILES:
            found = subprocess.run(
                ["git", "-C", str(repo), "show", f"HEAD:laq/laq_model/{name}"],
                capture_output=True,
                text=True,
                check=False,
            )
            if found.returncode:
                raise ValueError(f"{repo} is no clone of LAPA: {found.stderr.strip()}")
            # LAPA's code builds its codebook on a GPU, even on a machine without one.
            device = "cuda" if torch.cuda.is_available() else "cpu"
            (package / name).write_text(found.stdout.replace("device='cuda'", f"device='{device}'"), encoding="utf-8")
        sys.path.insert(0, scratch)
        try:
            yield importlib.import_module("laq_model.latent_action_quantization")
        finally:
            sys.path.remove(scratch)
            for name in [name for name in sys.modules if name.partition(".")[0] == "laq_model"]:
                del sys.modules[name]


@dataclass
class ThroughputConfig:
    """Measure training throughput."""

    lapa_repo: Path | None = None
    """A git clone of https://github.com/LatentActionPretraining/LAPA, run for the measurement only."""
    batch_size: int = 8
    """Clips per step."""
    repeats: int = 15
    """Timed steps of each."""
    device: str | None = None
    """Device: cpu or cuda; default: the best device of this machine."""


def main() -> None:
    """Entry point."""

    def command() -> None:
        config = draccus.parse(ThroughputConfig)
        results = run(config.lapa_repo, batch_size=config.batch_size, repeats=config.repeats, device=config.device)
        print(json.dumps(results, indent=2))

    run_cli(command)


if __name__ == "__main__":
    main()
