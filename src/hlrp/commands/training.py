"""The run of a training command: its folder, its lock and its log of events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hlrp.commands.running import resume_command
from hlrp.options.train_foundation import TrainFoundationConfig
from hlrp.options.train_laq import TrainLAQConfig
from hlrp.runtime.event_log import event_log
from hlrp.training.run import TrainingRun
from hlrp.training.settings import lasting_settings


@contextmanager
def training_run(config: TrainLAQConfig | TrainFoundationConfig, *, command: str) -> Iterator[TrainingRun]:
    """Open the run that `config` describes, for the time of the block.

    Args:
        config: Options of the command.
        command: Installed script of the command, such as "hlrp-train-laq".

    Raises:
        FileExistsError: If `config.output_dir` exists, or another process is training into it.
        ValueError: If a resumed run had other settings.
    """
    with (
        event_log(config.log_json, command=command, options=config),
        TrainingRun(
            config.output_dir,
            resume=config.resume,
            settings=lasting_settings(config),
            resume_command=resume_command(command),
        ) as run,
    ):
        yield run
