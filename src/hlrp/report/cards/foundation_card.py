"""The page that a foundation model's folder shows on the hub: what it does, how to use it, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hlrp.foundation.backends.interfaces import FoundationBackend
from hlrp.measure.code_accuracy import CodeFigures
from hlrp.measure.language import LanguageFigures
from hlrp.report.cards.parts import facts_list, figures_table, hub_model, metadata, sources_of, sources_table
from hlrp.report.verdicts import foundation_conclusion, foundation_verdicts
from hlrp.runtime.tables import counted

_CARD = """---
{metadata}
---

# Foundation VLA that speaks latent actions

From one frame and an instruction it predicts {num_codes} codes of {codebook_size}: the latent action of the next
{span:g} s, in the words of the quantizer {laq}. Backend: `{backend}`.

```python
from hlrp import FoundationBatch, load_foundation
vla = load_foundation("this folder, or the name of its repository").backend
observation = FoundationBatch(images, ["Open the drawer"])  # images: (1, cameras, 3, height, width) in [0, 1]
codes = vla.predict(observation).codes
```

`lerobot-train --policy.type=hlrp_vla_direct --policy.vla_checkpoint_path=…` trains a policy on it.

## Figures

{figures}

## Training

{training}
"""


NO_HELD_OUT = "No figures: only one episode has labels, so it was trained on and none was held out."


def foundation_card(
    backend: FoundationBackend,
    *,
    laq_fingerprint: str,
    extra: Mapping[str, Any],
    quality: CodeFigures | None = None,
    language: LanguageFigures | None = None,
) -> str:
    """Markdown with the held-out figures as a table.

    Args:
        backend: The model.
        laq_fingerprint: Fingerprint of the LAQ that made the labels; "" where it is not known.
        extra: Facts of the training run; `sources`, `license` and plain values are shown.
        quality: Its held-out figures; None where nobody has measured them.
        language: The same frames under other instructions; None where that was not measured.
    """
    spec, sources = backend.spec, sources_of(extra)
    base = hub_model(backend.config_dict().get("model_name"))
    facts = {name: value for name, value in extra.items() if name != "license"}
    parts = (
        ""
        if base is None
        else f"Its weights derive from [{base}](https://huggingface.co/{base}), whose licence binds.",
        sources_table(sources) if sources else "",
        facts_list(facts),
    )
    names = [source["name"] for source in sources]
    # No validation figures at all: nobody has validated; empty ones: no episode was held out.
    unmeasured = NO_HELD_OUT if extra.get("validation") == {} else "Not measured."
    return _CARD.format(
        metadata=metadata(license=extra.get("license"), sources=names, base_model=base).to_yaml(),
        num_codes=spec.num_codes,
        codebook_size=spec.codebook_size,
        span=spec.frame_offset_s * spec.num_transitions,
        laq=f"`{laq_fingerprint}`" if laq_fingerprint else "that nobody has named",
        backend=backend.backend_type,
        figures=unmeasured if quality is None else _figures(quality, language),
        training="\n\n".join(part for part in parts if part) or "Not recorded.",
    )


def _figures(quality: CodeFigures, language: LanguageFigures | None) -> str:
    values, spoken = quality.to_dict(), None if language is None else language.to_dict()
    episodes = "" if quality.episodes is None else f" of {counted(quality.episodes, 'episode')}"
    basis = f"Over {quality.frames} frames{episodes} that it was not trained on; the quantizer may have been."
    return f"{basis}\n\n{figures_table(foundation_verdicts(values, spoken), foundation_conclusion(values))}"
