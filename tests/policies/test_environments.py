"""Training on what LeRobot's simulators deliver and evaluation in them, by LeRobot's own commands."""

from __future__ import annotations

import importlib.util
import itertools
import json
import math
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.datasets.lerobot_dataset import LeRobotDatasetMetadata
from lerobot.envs.configs import AlohaEnv, EnvConfig, LiberoEnv, MetaworldEnv, PushtEnv
from lerobot.envs.utils import preprocess_observation
from lerobot.policies.factory import get_policy_class, make_pre_post_processors
from lerobot.processor import PolicyProcessorPipeline
from lerobot.scripts.lerobot_eval import eval_policy

from environment_recordings import REPO_ID, only_environment, prepare_stages, record_episodes
from hlrp.sim.configuration_light_metaworld import LightMetaworldConfig
from hlrp.sim.gl_backend import choose_gl_backend
from policies.lerobot_commands import pretrained, run_eval, run_train, train_flags
from policy_workshop import SMALL, Workshop

KIND = "hlrp_vla_direct"
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "evaluation.md"
SMALLER = {"hlrp_diffusion": ("--policy.down_dims=[8,16]", "--policy.num_train_timesteps=4")}
"""What the documentation leaves at a size for a GPU."""


@dataclass(frozen=True)
class Simulator:
    """One of LeRobot's environments, and what it needs."""

    package: str
    config: Callable[[], EnvConfig]
    task: str
    """Instruction of the recording."""
    eval_flags: tuple[str, ...]
    renders: bool = True
    """Whether it draws with MuJoCo, which needs OpenGL."""


SIMULATORS = {
    "pusht": Simulator(
        "gym_pusht",
        PushtEnv,
        "Push the T-shaped block onto the T-shaped target.",
        ("--env.type=pusht", "--env.episode_length=5"),
        renders=False,
    ),
    "aloha": Simulator(
        "gym_aloha",
        AlohaEnv,
        "insertion",
        ("--env.type=aloha", "--env.episode_length=3"),
    ),
    "hlrp_metaworld": Simulator(
        "metaworld",
        lambda: LightMetaworldConfig(task="drawer-open-v3"),
        "Open a drawer",
        ("--env.type=hlrp_metaworld", "--env.task=drawer-open-v3", "--env.episode_length=5"),
    ),
}


@dataclass(frozen=True)
class Recording:
    """A folder with a simulator's dataset and what comes before a policy, laid out as in docs/evaluation.md."""

    simulator: Simulator
    folder: Path

    @property
    def features(self) -> dict[str, Any]:
        """Columns of the dataset."""
        return LeRobotDatasetMetadata(REPO_ID, root=self.folder / "data").features

    def train(self, kind: str, output: Path, *flags: str) -> Path:
        """Two steps of `lerobot-train` with the flags of the documentation; the folder of the policy."""
        documented = documented_flags(kind, chunk=4, actions=2, folder=self.folder)
        run_train(*documented, *SMALLER.get(kind, ()), *train_flags(self.folder / "data", output, steps=2), *flags)
        return pretrained(output)

    def evaluate(self, policy: Path, output: Path, *flags: str) -> dict[str, Any]:
        """One episode of `lerobot-eval`; what it writes down."""
        run_eval(
            f"--policy.path={policy}",
            "--policy.device=cpu",
            *self.simulator.eval_flags,
            "--eval.n_episodes=1",
            "--eval.batch_size=1",
            f"--output_dir={output}",
            *flags,
        )
        return json.loads((output / "eval_info.json").read_text())


def documented_flags(kind: str, *, chunk: int, actions: int, folder: Path) -> list[str]:
    """What the first shell block of docs/evaluation.md says of a policy type."""
    match = re.search(r"```bash\n(.*?)```", DOCUMENTATION.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert match is not None
    script = f"{match[1]}\nTYPE={kind} DIR='{folder}'\nhlrp_flags {chunk} {actions}"
    return subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True).stdout.split()


def require(name: str) -> Simulator:
    """The simulator, or a test that is skipped for want of it."""
    simulator = SIMULATORS[name]
    if importlib.util.find_spec(simulator.package) is None:
        pytest.skip(f"{simulator.package} is not installed")
    if simulator.renders:
        try:
            choose_gl_backend()
        except FileNotFoundError as error:
            pytest.skip(str(error))
    return simulator


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Recording]:
    """Recordings by the name of the simulator, each made once."""
    made: dict[str, Recording] = {}

    def get(name: str) -> Recording:
        simulator = require(name)
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            prepare_stages(record_episodes(simulator.config(), folder / "data", task=simulator.task), folder)
            made[name] = Recording(simulator, folder)
        return made[name]

    return get


def require_one_episode(info: dict[str, Any]) -> None:
    """`eval_info.json` tells of one episode, with a reward that is a number."""
    overall = info["overall"]
    assert overall["n_episodes"] == 1
    assert math.isfinite(overall["avg_sum_reward"])
    assert overall["pc_success"] in (0.0, 100.0)


def test_pusht_names_no_task_so_the_policy_must_be_told(recording: Callable[[str], Recording], tmp_path: Path) -> None:
    recorded = recording("pusht")
    policy = recorded.train(KIND, tmp_path / "policy")
    with pytest.raises(ValueError, match="instruction"):
        recorded.evaluate(policy, tmp_path / "untold")
    told = recorded.evaluate(policy, tmp_path / "told", f"--policy.instruction={recorded.simulator.task}")
    require_one_episode(told)


def test_pusht_declares_other_pictures_than_it_delivers(recording: Callable[[str], Recording]) -> None:
    assert PushtEnv().features["pixels"].shape == (384, 384, 3)
    assert recording("pusht").features["observation.image"]["shape"] == (96, 96, 3)


@pytest.mark.slow
def test_aloha_is_one_camera_and_fourteen_joints(recording: Callable[[str], Recording]) -> None:
    features = recording("aloha").features
    assert features["observation.images.top"]["shape"] == (480, 640, 3)
    assert features["observation.state"]["shape"] == features["action"]["shape"] == (14,)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [*itertools.product(("pusht", "aloha"), sorted(SMALL)), ("hlrp_metaworld", KIND)],
)
def test_a_policy_trains_on_the_simulator_and_acts_in_it(
    recording: Callable[[str], Recording], name: str, kind: str, tmp_path: Path
) -> None:
    recorded = recording(name)
    policy = recorded.train(kind, tmp_path / "policy", f"--policy.instruction={recorded.simulator.task}")
    require_one_episode(recorded.evaluate(policy, tmp_path / "eval"))


@pytest.mark.slow
def test_a_policy_of_the_light_metaworld_acts_in_lerobots_own(
    recording: Callable[[str], Recording], tmp_path: Path
) -> None:
    recorded = recording("hlrp_metaworld")
    policy = get_policy_class(KIND).from_pretrained(folder := recorded.train(KIND, tmp_path / "policy"))
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    environment = only_environment(config := MetaworldEnv(task="drawer-open-v3"))
    environment.envs[0]._max_episode_steps = 2  # fixed at 500 otherwise, at a few steps a second
    seen, _ = environment.reset(seed=[0])
    assert preprocess_observation(seen)["observation.image"].shape == (1, 3, 480, 480)
    info = eval_policy(environment, policy, *config.get_env_processors(), before, after, n_episodes=1, start_seed=0)
    environment.close()
    assert len(info["per_episode"]) == 1
    assert math.isfinite(info["per_episode"][0]["sum_reward"])


def test_liberos_observations_fit_once_lerobot_has_turned_them(workshop: Workshop) -> None:
    """Its assets are a download, so nothing is simulated: pictures and joints of the right names and sizes."""
    cameras = ("observation.images.image", "observation.images.image2")
    policy = workshop.policy(
        KIND,
        input_features={
            **{camera: PolicyFeature(FeatureType.VISUAL, (3, 256, 256)) for camera in cameras},
            "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (7,))},
    )
    config = LiberoEnv()
    raw = {
        **{camera: torch.rand(2, 3, config.observation_height, config.observation_width) for camera in cameras},
        "observation.robot_state": {
            "eef": {"pos": torch.rand(2, 3), "quat": torch.tensor([[0.0, 0.0, 0.0, 1.0]] * 2), "mat": torch.rand(2, 9)},
            "gripper": {"qpos": torch.rand(2, 2), "qvel": torch.rand(2, 2)},
            "joints": {"pos": torch.rand(2, 7), "vel": torch.rand(2, 7)},
        },
        "task": ["turn on the stove and put the moka pot on it"] * 2,
    }
    turned: PolicyProcessorPipeline = config.get_env_processors()[0]
    seen = turned(raw)
    assert seen["observation.state"].shape == (2, 8)
    assert torch.equal(seen[cameras[0]], raw[cameras[0]].flip(2, 3))
    before, _ = make_pre_post_processors(policy.config)
    assert policy.eval().select_action(before(seen)).shape == (2, 7)
