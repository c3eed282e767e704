"""The model card (README.md) of a quantizer for the hub: what the model does, how to use it, and its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hlrp.laq.model import LatentActionQuantizer
from hlrp.measure.across_sources import SourcePair
from hlrp.measure.laq_quality import LAQQuality
from hlrp.report.cards.parts import (
    facts_list,
    markdown_table,
    markdown_text,
    metadata,
    metrics_table,
    sources_of,
    sources_table,
)
from hlrp.report.latent_table import SOURCE_PAIRS_HEADER, basis_of_r2, source_pair_cells
from hlrp.report.verdicts.latent import latent_conclusion, latent_verdicts
from hlrp.runtime.tables import with_noun

_CARD = """---
{metadata}
---

# Latent action quantizer

This model describes in {latents} what changed between two frames {offset:g} s apart. It was trained on video. Cameras:
{cameras}.

```python
from hlrp import load_laq
laq = load_laq("this folder, or the name of its repository").model
latents = laq.encode(frames)  # ({clip}) RGB, uint8, or float32 in [0, 1]; see latents.codes and latents.vectors
```

## Metrics

{metrics}

## Training

{training}
"""


NO_HELD_OUT = (
    "No metrics: only one episode has room for a clip, so it was trained on and none was held out. Measure the "
    "quantizer on other recordings with `hlrp-inspect-latents`."
)


_SOURCE_PAIRS = (
    "Do codes mean the same on every source? Share of the codes of held-out clips of one source that are found again "
    "after they were decoded from frames of another one; and R² of the other source's actions, predicted by a linear "
    "map from codes that was fitted on the first one:"
)


def model_card(
    model: LatentActionQuantizer, *, cameras: Sequence[str], quality: LAQQuality | None, extra: Mapping[str, Any]
) -> str:
    """Model card of a quantizer as Markdown, with its metrics as a table.

    Args:
        model: The quantizer.
        cameras: Dataset keys of the cameras that it was trained on.
        quality: Metrics on held-out clips; None if they were not measured.
        extra: Description of the training, as for `save_laq`; `sources`, `license` and plain values are shown.
    """
    spec, config = model.spec, model.config
    sources = sources_of(extra)
    facts = {name: value for name, value in extra.items() if name != "license"}
    parts = (sources_table(sources) if sources else "", facts_list(facts), _across_sources(extra))
    return _CARD.format(
        metadata=metadata(license=extra.get("license"), sources=[source["name"] for source in sources]).to_yaml(),
        latents=f"{spec.code_seq_len} codes of {spec.codebook_size}" if model.quantizer.has_codes else "a few numbers",
        offset=spec.frame_offset_s,
        cameras=", ".join(f"`{markdown_text(camera)}`" for camera in cameras) or "any",
        clip=", ".join(map(str, ("batch", spec.num_frames, config.num_cameras, 3, *config.image_size))),
        metrics=_unmeasured(extra) if quality is None else _metrics(quality),
        training="\n\n".join(part for part in parts if part) or "Not recorded.",
    )


def _unmeasured(extra: Mapping[str, object]) -> str:
    """Sentence that says why the model card has no metrics."""
    sources = extra.get("sources")
    if isinstance(sources, list) and sources and not any(source.get("held_out_episodes") for source in sources):
        return NO_HELD_OUT
    return "Not measured yet; `hlrp-inspect-latents` does."


def _across_sources(extra: Mapping[str, Any]) -> str:
    """Markdown that shows whether codes mean the same on all sources; empty for a single source."""
    if not extra.get("across_sources"):
        return ""
    pairs = [SourcePair(**pair) for pair in extra["across_sources"]]
    rows = [[markdown_text(cell) for cell in source_pair_cells(pair)] for pair in pairs]
    return f"{_SOURCE_PAIRS}\n\n{markdown_table(SOURCE_PAIRS_HEADER, rows)}"


def _metrics(quality: LAQQuality) -> str:
    values = quality.to_dict()
    basis = f"Over {quality.clips} clips of {with_noun(quality.episodes, 'episode')} that it was not trained on."
    basis = f"{basis} {basis_of_r2(quality.probe)}".rstrip()
    return f"{basis}\n\n{metrics_table(latent_verdicts(values), latent_conclusion(values))}"
