"""The page that a quantizer's folder shows on the hub: what it does, how to use it, and its figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hlrp.laq.model import LatentActionQuantizer
from hlrp.laq.quality import LAQQuality
from hlrp.verdicts import latent_verdicts

_CARD = """---
library_name: hlrp
pipeline_tag: robotics
tags:
- robotics
- latent-actions
- lerobot
---

# Latent action quantizer

It says in {latents} what changed between frames {offset:g} s apart, without actions. Cameras: {cameras}.

```python
from hlrp.laq.model import LatentActionQuantizer
laq = LatentActionQuantizer.from_pretrained("this folder, or the name of its repository")
latents = laq.encode(frames)  # ({clip}) RGB, uint8, or float32 in [0, 1]; see latents.codes and latents.vectors
```

## Figures

{figures}

## Origin

{origin}
"""


NO_HELD_OUT = (
    "No figures: only one episode has room for a clip, so it was trained on and none was held out. Measure the "
    "quantizer on other recordings with `hlrp-inspect-latents`."
)


def model_card(
    model: LatentActionQuantizer, *, cameras: Sequence[str], quality: LAQQuality | None, extra: Mapping[str, object]
) -> str:
    """Markdown with the quality card as a table; `quality` is None where nobody has measured it."""
    spec, config = model.spec, model.config
    return _CARD.format(
        latents=f"{spec.code_seq_len} codes of {spec.codebook_size}" if model.quantizer.has_codes else "a few numbers",
        offset=spec.frame_offset_s,
        cameras=", ".join(f"`{camera}`" for camera in cameras) or "any",
        clip=", ".join(map(str, ("batch", spec.num_frames, config.channels, *config.image_size))),
        figures=_unmeasured(extra) if quality is None else _figures(quality),
        origin="\n".join(f"- {name.replace('_', ' ')}: {_short(value)}" for name, value in extra.items()),
    )


def _unmeasured(extra: Mapping[str, object]) -> str:
    """Why there is no quality card."""
    sources = extra.get("sources")
    if isinstance(sources, list) and sources and not any(source.get("held_out_episodes") for source in sources):
        return NO_HELD_OUT
    return "Not measured yet; `hlrp-inspect-latents` does."


def _figures(quality: LAQQuality) -> str:
    rows = [
        f"| {verdict.name} | {verdict.value} | {verdict.word} | {verdict.wanted} | {verdict.meaning} |"
        for verdict in latent_verdicts(quality.to_dict())
    ]
    counted = f"Over {quality.clips} clips of {quality.episodes} episodes that it was not trained on."
    return "\n".join([counted, "", "| figure | value | verdict | wanted | meaning |", "|---|---|---|---|---|", *rows])


def _short(value: object) -> str:
    return f"{len(value)} in all" if isinstance(value, (list, tuple)) and len(value) > 8 else str(value)
