"""The page that a foundation model's folder shows on the hub: what it does, how to use it, and its figures."""

from __future__ import annotations

from collections.abc import Mapping

from hlrp.foundation.backends.interfaces import FoundationBackend

_CARD = """---
library_name: hlrp
pipeline_tag: robotics
tags:
- robotics
- latent-actions
- lerobot
---

# Foundation VLA that speaks latent actions

From one frame and an instruction it predicts {num_codes} codes of {codebook_size}: the latent action of the next
{span:g} s, in the words of the quantizer {laq}. Backend: `{backend}`.

```python
from hlrp.foundation.batch import FoundationBatch
from hlrp.foundation.checkpoint import load_foundation
vla = load_foundation("this folder, or the name of its repository").backend
observation = FoundationBatch(images, ["Open the drawer"])  # images: (1, cameras, 3, height, width) in [0, 1]
codes = vla.predict(observation).codes
```

`lerobot-train --policy.type=hlrp_vla_direct --policy.vla_checkpoint_path=…` trains a policy on it.

## Figures on held-out episodes

{figures}

## Origin

{origin}
"""


NO_HELD_OUT = "No figures: only one episode has labels, so it was trained on and none was held out."


def foundation_card(backend: FoundationBackend, *, laq_fingerprint: str, extra: Mapping[str, object]) -> str:
    """Markdown with the validation figures that `extra` holds under `validation`, and its other facts.

    Empty validation figures say that no episode was held out; none at all, that nobody has validated.
    """
    spec = backend.spec
    validation = extra.get("validation")
    figures = validation if isinstance(validation, Mapping) else {}
    unmeasured = NO_HELD_OUT if figures is validation else "Not measured."
    rows = [f"| {_words(name)} | {value:.3f} |" for name, value in figures.items() if isinstance(value, float)]
    facts = [f"- {_words(name)}: {value}" for name, value in extra.items() if name != "validation"]
    return _CARD.format(
        num_codes=spec.num_codes,
        codebook_size=spec.codebook_size,
        span=spec.frame_offset_s * spec.num_transitions,
        laq=f"`{laq_fingerprint}`" if laq_fingerprint else "that nobody has named",
        backend=backend.backend_type,
        figures="\n".join(["| figure | value |", "|---|---|", *rows]) if rows else unmeasured,
        origin="\n".join(facts) or "Not recorded.",
    )


def _words(name: str) -> str:
    return name.replace("_", " ")
