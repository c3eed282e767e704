"""Model card of a foundation model: its purpose, its use, and its held-out metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hlrp.foundation.backends.interfaces import FoundationBackend
from hlrp.measure.code_accuracy import CodeAccuracy
from hlrp.measure.language import LanguageMetrics
from hlrp.report.cards.parts import (
    facts_list,
    hub_model,
    markdown_text,
    metadata,
    metrics_table,
    sources_of,
    sources_table,
)
from hlrp.report.verdicts.foundation import foundation_conclusion, foundation_verdicts
from hlrp.runtime.tables import with_noun

_CARD = """---
{metadata}
---

# Foundation VLA that predicts latent actions

From one frame and an instruction, this model predicts {num_codes} codes of {codebook_size} possible values: the latent
action of the next {span:g} s, as encoded by the quantizer {laq}. Backend: `{backend}`.

```python
from hlrp import FoundationBatch, load_foundation
vla = load_foundation("this folder, or the name of its repository").backend
observation = FoundationBatch(images, ["Open the drawer"])  # images: (1, cameras, 3, height, width) in [0, 1]
codes = vla.predict(observation).codes
```

`lerobot-train --policy.type=hlrp_vla_direct --policy.vla_checkpoint_path=…` trains a policy on it.

## Metrics

{metrics}

## Training

{training}
"""


NO_HELD_OUT = "No metrics: only one episode has labels, so it was trained on and none was held out."


def foundation_card(
    backend: FoundationBackend,
    *,
    laq_fingerprint: str,
    extra: Mapping[str, Any],
    quality: CodeAccuracy | None = None,
    language: LanguageMetrics | None = None,
) -> str:
    """Model card in Markdown, with the held-out metrics as a table.

    Args:
        backend: The model.
        laq_fingerprint: Fingerprint of the LAQ that made the labels; "" if it is unknown.
        extra: Facts of the training run; `sources`, `license` and plain values are shown.
        quality: Held-out metrics of the model; None if they were not measured.
        language: Metrics of the held-out frames under swapped instructions; None if they were not measured.
    """
    spec, sources = backend.spec, sources_of(extra)
    base = hub_model(backend.config_dict().get("model_name"))
    facts = {name: value for name, value in extra.items() if name != "license"}
    parts = (
        ""
        if base is None
        else f"Its weights derive from [{base}](https://huggingface.co/{base}), whose licence applies.",
        sources_table(sources) if sources else "",
        facts_list(facts),
    )
    names = [source["name"] for source in sources]
    # `validation` is an empty dictionary if no episode was held out, and missing if validation was not run.
    unmeasured = NO_HELD_OUT if extra.get("validation") == {} else "Not measured."
    return _CARD.format(
        metadata=metadata(license=extra.get("license"), sources=names, base_model=base).to_yaml(),
        num_codes=spec.num_codes,
        codebook_size=spec.codebook_size,
        span=spec.frame_offset_s * spec.num_transitions,
        laq=f"`{markdown_text(laq_fingerprint)}`" if laq_fingerprint else "of unknown origin",
        backend=backend.backend_type,
        metrics=unmeasured if quality is None else _metrics(quality, language),
        training="\n\n".join(part for part in parts if part) or "Not recorded.",
    )


def _metrics(quality: CodeAccuracy, language: LanguageMetrics | None) -> str:
    values = quality.to_dict()
    under_other_instructions = None if language is None else language.to_dict()
    episodes = "" if quality.episodes is None else f" of {with_noun(quality.episodes, 'episode')}"
    basis = f"Over {quality.frames} frames{episodes} not used to train it; the quantizer may have been trained on them."
    verdicts = foundation_verdicts(values, under_other_instructions)
    return f"{basis}\n\n{metrics_table(verdicts, foundation_conclusion(values))}"
