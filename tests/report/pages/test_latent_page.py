"""The page of one quantizer: whole, self-contained, and free of what was not measured."""

from __future__ import annotations

import re
from dataclasses import replace
from io import BytesIO

import pytest
import torch
from PIL import Image

from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentSpec
from hlrp.measure.action_probe import Chunks
from hlrp.measure.baselines import BaselineRow
from hlrp.measure.laq_quality import LAQQuality, QualityClips, measure_quality
from hlrp.report.latent_table import baseline_table, quality_table
from hlrp.report.pages.latent_gallery import _drawn_actions, latent_gallery
from hlrp.report.pages.latent_page import render_latent_page
from hlrp.report.plots.latent_plots import AtlasEntry, atlas_figure, overlay, probe_figure

pytestmark = pytest.mark.filterwarnings("error")  # a layout that does not fit only warns


def measured(
    quantizer: str = "fsq", *, t: int = 2, cameras: int = 1, actions: int = 3, targets: tuple[str, ...] = ("pixels",)
) -> tuple[LAQQuality, dict[str, bytes]]:
    """Card and figures of an untrained model on noise."""
    spec = LatentSpec(codebook_size=4, code_seq_len=2, code_dim=4, num_frames=t)
    config = replace(debug(), spec=spec, quantizer=quantizer, num_cameras=cameras, targets=targets)
    model = LatentActionQuantizer(config).train()
    model(torch.rand(64, t, cameras, 3, 32, 32))  # a learned codebook starts from data
    frames = torch.randint(0, 256, (24, t, cameras, 3, 32, 32), dtype=torch.uint8)
    chunk = torch.randn(24, 4, actions) if actions else None
    clips = QualityClips([frames], [frames], torch.arange(24) % 3, frames, chunk, chunk)
    quality = measure_quality(model.eval(), clips)
    return quality, latent_gallery(model, clips, quality)


def test_the_page_loads_nothing_and_shows_every_figure() -> None:
    quality, figures = measured()
    page = render_latent_page(quality, figures, {"source": "<noise>"}, episodes="noise")
    assert set(figures) == {
        "predictions", "checks", "transfer", "gains", "code_usage", "probes",
        "atlas: code tuples", "atlas: slot 0", "atlas: slot 1",
    }  # fmt: skip
    assert page.count("<img") == len(figures)
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "<script" not in page
    assert "&lt;noise&gt;" in page
    for content in figures.values():
        with Image.open(BytesIO(content)) as image:
            assert image.format == "PNG"
            assert image.width == 1152


def test_plain_video_has_a_page_without_actions() -> None:
    quality, figures = measured(actions=0)
    assert "probes" not in figures
    page = render_latent_page(quality, figures, {}, episodes="noise")
    for claim in ("Actions in the latents", "probe R²", "gain over the frame", "R² from latents", "arrow"):
        assert claim not in page
    assert "probe R²" not in quality_table(quality)


def test_a_latent_without_codes_has_an_atlas_of_groups() -> None:
    quality, figures = measured("continuous")
    assert "code_usage" not in figures
    assert [name for name in figures if name.startswith("atlas")] == ["atlas: groups of vectors"]
    render_latent_page(quality, figures, {}, episodes="noise")


def test_a_model_without_pixels_shows_codes_only() -> None:
    quality, figures = measured(targets=("flow",))
    assert not {"predictions", "checks", "transfer", "gains"} & set(figures)
    assert "atlas: slot 0" in figures
    render_latent_page(quality, figures, {}, episodes="noise")


def test_more_frames_and_more_cameras_are_drawn_too() -> None:
    assert measured(t=3, cameras=2, actions=1)[1].keys() == measured()[1].keys()


def test_baselines_stand_in_page_and_terminal() -> None:
    quality, figures = measured()
    row = BaselineRow(
        name="oracle", meaning="of true <actions>", probe_r2=0.91, probe_r2_interval=(0.9, 0.92), perplexity=[3.9],
        tuple_entropy_bits=None,
    )  # fmt: skip
    page = render_latent_page(quality, figures, {}, [row], episodes="noise")
    assert "of true &lt;actions&gt;" in page
    for text in (page, baseline_table([row])):
        assert "0.910" in text
        assert "0.90 … 0.92" in text


def test_the_terminal_shows_every_verdict() -> None:
    quality, _ = measured()
    text = quality_table(quality)
    assert f"{quality.probe.probe_r2:.3f}" in text
    assert "perplexity per slot" in text


def test_what_does_not_change_is_grey_and_what_does_is_coloured() -> None:
    before = torch.full((2, 3, 4, 4), 0.5)
    after = before.clone()
    after[1, :, 0, 0] = 1.0
    still, moved = overlay(before, after)
    assert (still.max(-1) == still.min(-1)).all()
    assert moved[0, 0, 0] > moved[0, 0, 2]  # brighter: orange
    assert (moved[1:] == still[1:]).all()


def test_an_atlas_has_room_for_one_code_and_for_eight() -> None:
    def entry(examples: int) -> AtlasEntry:
        frames = torch.rand(examples, 3, 8, 8)
        return AtlasEntry("code 1", 0.5, torch.zeros(8, 8), frames, frames.flip(0), torch.randn(5, 2))

    atlas_figure([entry(1)])
    atlas_figure([entry(2)] * 7 + [entry(1)], [3, 25])
    with pytest.raises(ValueError, match="at least one code"):
        atlas_figure([])


def test_the_arrow_of_a_code_shows_also_if_its_mean_action_is_far_out() -> None:
    frames = torch.full((1, 3, 8, 8), 0.5)
    entry = AtlasEntry("code 1", 0.5, torch.zeros(8, 8), frames, frames, torch.tensor([[4.0, 9.0]]))
    colours = Image.open(BytesIO(atlas_figure([entry]))).convert("RGB").getcolors(1 << 24)
    assert (0, 114, 178) in {colour for _, colour in colours or []}  # the blue of the arrow


def test_probes_without_a_varying_action_are_refused() -> None:
    with pytest.raises(ValueError, match="an action that varies"):
        probe_figure({"codes": [None, None]})


def test_the_atlas_draws_the_two_dimensions_that_the_codes_predict_best() -> None:
    chunks = Chunks(
        fit=torch.zeros(0, 8),
        held_out=torch.arange(8.0).repeat(3, 1) + torch.arange(3.0)[:, None],
        episode=torch.arange(3),
        dimensions=4,
    )
    quality, _ = measured()
    probe = replace(
        quality.probe,
        probe_r2_quantized=0.4,
        probe_r2_per_action_by_features={"quantized": [0.1, None, 0.5, 0.3]},
    )
    drawn = _drawn_actions(chunks, replace(quality, probe=probe))
    assert drawn is not None
    assert drawn.dimensions == [2, 3]
    assert torch.equal(drawn.actions, torch.tensor([[4.0, 5.0], [5.0, 6.0], [6.0, 7.0]]))
    assert _drawn_actions(None, quality) is None
