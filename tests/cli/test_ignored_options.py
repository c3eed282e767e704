"""Options that would be ignored, or would be read as another value than the user typed, are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import draccus
import pytest
from draccus import ParsingError

from hlrp.cli.common import read_options
from hlrp.data.source_config import AddedSourceConfig, ObservationConfig, SourceConfig
from hlrp.labelling.config import TaskResources
from hlrp.options.combine_datasets import CombineDatasetsConfig
from hlrp.options.inspect_latents import InspectConfig
from hlrp.options.precompute_latent_codes import PrecomputeConfig
from hlrp.options.pseudo_label import PseudoLabelConfig
from hlrp.options.train_foundation import TrainFoundationConfig
from hlrp.options.train_laq import TrainLAQConfig
from hlrp.options.view_labels import ViewLabelsConfig

TWICE = {"cameras": ["a", "b", "a"]}
FILMS = {"video_dir": "films", "tolerance_s": 0.1}
ADDED = {"dataset_root": "more"}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (TrainLAQConfig, TWICE),
        (InspectConfig, TWICE),
        (PrecomputeConfig, TWICE),
        (TrainFoundationConfig, TWICE),
        (
            CombineDatasetsConfig,
            {"output_dir": Path("all"), "sources": [AddedSourceConfig(dataset_root="more")], **TWICE},
        ),
        (PseudoLabelConfig, {"output_dir": Path("all"), **TWICE}),
        (SourceConfig, TWICE),
        (ObservationConfig, TWICE),
    ],
)
def test_a_camera_that_is_named_twice(kind: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"cameras names a camera twice, got \['a', 'b', 'a'\]; name each camera once"):
        kind(**options)


@pytest.mark.parametrize(
    ("kind", "options", "says"),
    [
        (PrecomputeConfig, FILMS, "tolerance_s goes with a dataset"),
        (ViewLabelsConfig, FILMS, "tolerance_s goes with a dataset"),
        (AddedSourceConfig, {**FILMS, "instruction": "Open"}, "tolerance_s goes with a dataset"),
        (TrainLAQConfig, {"find_scene_cuts": False}, "find_scene_cuts goes with video_dir; a dataset is not searched"),
        (InspectConfig, {"find_scene_cuts": False}, "find_scene_cuts goes with video_dir"),
        (PrecomputeConfig, {"find_scene_cuts": False}, "find_scene_cuts goes with video_dir"),
        (AddedSourceConfig, {**ADDED, "find_scene_cuts": False}, "find_scene_cuts goes with video_dir"),
        (AddedSourceConfig, {**ADDED, "camera_map": {"a": "c", "b": "c"}}, "camera_map maps two cameras to the same"),
        (InspectConfig, {"labelled_fraction": 0.5}, "labelled_fraction goes with baselines"),
        (InspectConfig, {"labeller_steps": 9}, "labeller_steps goes with baselines"),
    ],
)
def test_an_option_without_effect_is_refused(kind: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kind(**options)


@pytest.mark.parametrize(
    ("executor", "resources", "says"),
    [
        ("none", {"gpus_per_task": 1}, "resources.gpus_per_task has no effect with executor=none.*to slurm or ray"),
        ("local", {"cpus_per_task": 8}, "resources.cpus_per_task has no effect with executor=local"),
        ("ray", {"partition": "gpu"}, "resources.partition has no effect with executor=ray.*set executor to slurm"),
    ],
)
def test_resources_that_the_executor_does_not_read(executor: Any, resources: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        PrecomputeConfig(executor=executor, resources=TaskResources(**resources))


@pytest.mark.parametrize("text", ["007", "no", "1e3", "2:00:00", "2026-11-27", "a: b", "a #b", "[a]", "größe", 'a"b'])
def test_a_flag_keeps_its_text(text: str, tmp_path: Path) -> None:
    for flags in ([f"--dataset_root={text}", f"--output_dir={text}"], ["--dataset_root", text, "--output_dir", text]):
        config = read_options(PseudoLabelConfig, flags)
        assert (config.dataset_root, config.output_dir) == (text, Path(text))
    assert read_options(PrecomputeConfig, [f"--output_dir={text}"]).output_dir == text
    slurm = ["--executor=slurm", "--resources.partition=gpu", f"--resources.time={text}"]
    assert read_options(PrecomputeConfig, slurm).resources.time == text
    model = read_options(TrainFoundationConfig, [f"--backend.system_prompt={text}"]).backend
    assert getattr(model, "system_prompt") == text  # noqa: B009  an option of this kind of backend alone


def test_quotes_and_no_value_are_read_as_before() -> None:
    assert read_options(TrainLAQConfig, ["--dataset_root='007'"]).dataset_root == "007"
    assert read_options(TrainLAQConfig, ['--dataset_root="a b"', "--seed", "3"]).dataset_root == "a b"
    assert read_options(TrainLAQConfig, ["--dataset_root=null"]).dataset_root is None
    assert read_options(TrainLAQConfig, ["--cameras=[a, 'no']"]).cameras == ["a", "no"]


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"dataset_root": 7}, "dataset_root", "7"),
        ({"output_dir": True}, "output_dir", "true"),
        ({"sources": [{"video_dir": "films", "instruction": False}]}, "sources.0.instruction", "false"),
        ({"cameras": ["a", 7]}, "cameras.1", "7"),
    ],
)
def test_a_file_whose_value_is_no_text(options: dict[str, Any], name: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "options.json"
    file.write_text(json.dumps({"output_dir": "all", "sources": [{"dataset_root": "more"}], **options}))
    with pytest.raises(ParsingError, match=f"without quotes it is read as {value}; put the text in quotes") as refused:
        read_options(CombineDatasetsConfig, [f"--config_path={file}"])
    assert str(refused.value).startswith(f"`{name}`: ")


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--sources=[{video_dir: films, instruction: No}]", "sources.0.instruction"),
        ("--sources=[{dataset_root: more, camera_map: {a: 7}}]", "sources.0.camera_map.a"),
        ("--cameras=[a, off]", "cameras.1"),
    ],
)
def test_a_list_or_mapping_whose_value_is_no_text(flag: str, name: str) -> None:
    with pytest.raises(ParsingError, match="put the text in quotes") as refused:
        read_options(CombineDatasetsConfig, ["--output_dir=all", "--sources=[{dataset_root: more}]", flag])
    assert str(refused.value).startswith(f"`{name}`: ")


def test_lerobot_reads_its_own_text_as_before() -> None:
    read_options(TrainLAQConfig, ["--steps=3"])
    assert draccus.decode(SourceConfig, {"dataset_root": 7}).dataset_root == "7"


def test_options_with_an_effect_are_read() -> None:
    assert SourceConfig(video_dir="films", find_scene_cuts=False, video_fps=5).video_fps == 5
    assert InspectConfig(baselines=True, labeller_steps=9).labeller().steps == 9
    assert AddedSourceConfig(dataset_root="more", camera_map={"a": "b", "b": "a"}).camera_map["a"] == "b"
    assert PrecomputeConfig(executor="ray", resources=TaskResources(cpus_per_task=8)).cluster().executor == "ray"
    slurm = TaskResources(partition="gpu", time="1:00:00")
    assert PrecomputeConfig(executor="slurm", resources=slurm).cluster().resources.time == "1:00:00"
