from __future__ import annotations

import pytest
import torch
from torch import nn

from hlrp.training.optimization import OptimizerConfig, lightning_optimizers, lr_fraction, parameter_groups


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.0}, "lr must be above 0, got 0.0"),
        ({"warmup_steps": -1}, "warmup_steps must be 0 or more, got -1"),
        ({"final_lr_fraction": 1.5}, r"final_lr_fraction must be in \[0, 1\], got 1.5"),
    ],
)
def test_an_impossible_setting_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerConfig(**changes)  # pyright: ignore[reportArgumentType]


def test_the_rate_rises_to_its_peak_and_falls_to_its_end_and_stays_there() -> None:
    config = OptimizerConfig(warmup_steps=10, final_lr_fraction=0.1)
    rates = [lr_fraction(step, total_steps=100, config=config) for step in range(150)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100:] == pytest.approx([0.1] * 50)


@pytest.mark.parametrize("total_steps", [1, 5, 50])
def test_a_run_shorter_than_its_warmup_never_divides_by_zero_or_exceeds_the_peak(total_steps: int) -> None:
    config = OptimizerConfig(warmup_steps=50)
    assert all(0 < lr_fraction(step, total_steps=total_steps, config=config) <= 1 for step in range(60))


def test_without_warmup_the_first_step_has_the_peak_rate() -> None:
    assert lr_fraction(0, total_steps=10, config=OptimizerConfig(warmup_steps=0)) == 1


def test_matrices_decay_and_vectors_do_not_and_frozen_weights_are_left_out() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    module[2].requires_grad_(False)
    decayed, kept = parameter_groups(module, 0.1)
    assert [decayed["weight_decay"], kept["weight_decay"]] == [0.1, 0.0]
    assert [tuple(p.shape) for p in decayed["params"]] == [(3, 2)]  # pyright: ignore[reportGeneralTypeIssues, reportAttributeAccessIssue]
    assert [tuple(p.shape) for p in kept["params"]] == [(3,), (3,), (3,)]  # pyright: ignore[reportGeneralTypeIssues, reportAttributeAccessIssue]


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ValueError, match="no trainable parameter; unfreeze a part of it"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.1)


def test_the_schedule_starts_at_the_first_step_of_the_warmup() -> None:
    config = OptimizerConfig(lr=1e-2, warmup_steps=4)
    parts = lightning_optimizers(nn.Linear(2, 2), config, total_steps=8)
    optimizer, schedule = parts["optimizer"], parts["lr_scheduler"]["scheduler"]  # pyright: ignore[reportIndexIssue]
    assert isinstance(optimizer, torch.optim.AdamW)
    rates = []
    for _ in range(8):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    expected = [1e-2 * lr_fraction(step, total_steps=8, config=config) for step in range(8)]
    assert rates == pytest.approx(expected)
    assert parts["lr_scheduler"]["interval"] == "step"  # pyright: ignore[reportIndexIssue]
