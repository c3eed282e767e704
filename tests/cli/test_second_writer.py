from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path

import pytest

from hlrp.cli.combine_datasets import CombineDatasetsConfig, combine_datasets
from hlrp.cli.import_lapa import ImportLapaConfig, import_lapa
from hlrp.cli.inspect_latents import InspectConfig, inspect_latents
from hlrp.cli.pseudo_label import PseudoLabelConfig, pseudo_label
from hlrp.cli.train_foundation import TrainFoundationConfig, train_foundation
from hlrp.cli.train_laq import TrainLAQConfig, train_laq
from hlrp.data.source_config import AddedSourceConfig
from hlrp.sim.config import DemonstrationConfig
from hlrp.sim.demonstrations import record_demonstrations

NOWHERE = "nowhere"
COMMANDS: dict[str, Callable[[Path], object]] = {
    "train_laq": lambda out: train_laq(TrainLAQConfig(dataset_root=NOWHERE, output_dir=str(out))),
    "train_foundation": lambda out: train_foundation(TrainFoundationConfig(dataset_root=NOWHERE, output_dir=str(out))),
    "combine_datasets": lambda out: combine_datasets(
        CombineDatasetsConfig(dataset_root=NOWHERE, output_dir=out, sources=[AddedSourceConfig(dataset_root=NOWHERE)])
    ),
    "pseudo_label": lambda out: pseudo_label(PseudoLabelConfig(dataset_root=NOWHERE, laq_path=NOWHERE, output_dir=out)),
    "inspect_latents": lambda out: inspect_latents(
        InspectConfig(dataset_root=NOWHERE, laq_path=NOWHERE, output_dir=str(out))
    ),
    "import_lapa": lambda out: import_lapa(ImportLapaConfig(weights=NOWHERE, output_dir=str(out), frame_offset_s=1.0)),
    "collect_demos": lambda out: record_demonstrations(
        DemonstrationConfig(tasks=("drawer-open-v3",), episodes_per_task=1), out, repo_id="local/demos"
    ),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_writer_is_refused_before_it_looks_at_its_inputs(tmp_path: Path, name: str) -> None:
    if name == "collect_demos":
        pytest.importorskip("metaworld")
    with (tmp_path / ".out.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another process holds it
        with pytest.raises(FileExistsError, match=r"another process is writing .*out; wait until it has ended"):
            COMMANDS[name](tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]
