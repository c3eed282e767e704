"""Model card of a policy: its purpose, its use, and its success in simulation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hlrp.measure.success_rate import task_successes
from hlrp.report.cards.parts import facts_list, markdown_table, metadata

_CARD = """---
{metadata}
---

# Robot policy `{policy}`

From one frame and an instruction, this policy predicts a latent action, and turns it into a chunk of continuous
actions. It holds all it needs: neither the quantizer nor the foundation model that it was trained with.

```bash
{usage}
```

## Success in simulation

{episodes} episodes that it was not trained on, with 95 % Wilson intervals.

{success}

## Training

{training}
"""


def policy_card(
    policy: str, success: Mapping[str, Any], *, usage: str, sources: Sequence[str], facts: Mapping[str, object]
) -> str:
    """Model card in Markdown.

    Args:
        policy: Type of the policy.
        success: Success rates, as `hlrp.demo.evaluation_files.success` returns them.
        usage: Shell command that runs the policy.
        sources: Names of the training datasets.
        facts: Strings and numbers about the training, by name.
    """
    rows = [
        [task, f"{rate:.0%} ({low:.0%} … {high:.0%})", str(success["task_episodes"][task])]
        for task, (rate, low, high) in task_successes({policy: success})[policy].items()
    ]
    low, high = success["interval"]
    rows.append(["**all**", f"**{success['success_rate']:.0%}** ({low:.0%} … {high:.0%})", str(success["episodes"])])
    return _CARD.format(
        metadata=metadata(license=None, sources=sources).to_yaml(),
        policy=policy,
        usage=usage,
        episodes=success["episodes"],
        success=markdown_table(["task", "solved", "episodes"], rows),
        training=facts_list(facts),
    )
