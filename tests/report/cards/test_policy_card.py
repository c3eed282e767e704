"""The card of a policy says how often it solves its tasks, and how to run it."""

from __future__ import annotations

from hlrp.report.cards.policy_card import policy_card


def test_the_card_holds_success_usage_and_training() -> None:
    success = {
        "success_rate": 0.75,
        "episodes": 4,
        "interval": [0.3, 0.95],
        "tasks": {"push-v3": 1.0, "pull-v3": 0.5},
        "task_episodes": {"push-v3": 2, "pull-v3": 2},
    }
    card = policy_card("hlrp_vla_direct", success, usage="lerobot-eval --x", sources=["demos"], facts={"steps": 9})
    assert card.startswith("---\nlibrary_name: hlrp\n")
    assert "license: apache-2.0" in card
    assert "| push-v3 | 100% (34% … 100%) | 2 |" in card
    assert "| **all** | **75%** (30% … 95%) | 4 |" in card
    assert "```bash\nlerobot-eval --x\n```" in card
    assert "- steps: 9" in card
