"""Run LeRobot's own policy tests on the policy types of this plugin.

    python scripts/run_lerobot_suite.py --lerobot_repo=../lerobot

The tests come from a clone of LeRobot, at the tag of the installed version; the branch that is checked out there does
not matter. A pytest plugin replaces LeRobot's policy types by those of this plugin. Nothing is downloaded: the datasets
that the tests load from the hub are replaced by short recordings of the same simulators. The summary lists every test
that is left out, with the reason.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

OURS = ("hlrp_action_expert_direct", "hlrp_action_expert_latent", "hlrp_diffusion", "hlrp_vla", "hlrp_vla_direct")
PUSHT, METAWORLD = "lerobot/pusht", "local/drawer_open"

WITHOUT_HUB: dict[str, dict[str, Any]] = {
    "hlrp_vla": {"vla_model_name": None, "laq_decoder_type": "codebook_lookup"},
    "hlrp_diffusion": {"vla_model_name": None, "image_size": None},
}
"""Settings with which the presets can be built offline and without a LAQ checkpoint."""


# ---- Replacements of what the tests load from the hub ----


@dataclass(frozen=True)
class Materials:
    """Recorded datasets in a temporary LeRobot home, with labels and foundation models to build policies from."""

    folder: Path

    def record(self) -> None:
        """Record PushT and Meta-World, label the frames and save untrained foundation models; takes seconds."""
        from lerobot.envs.configs import PushtEnv

        from environment_recordings import prepare_stages, record_episodes
        from hlrp.sim.configuration_light_metaworld import LightMetaworldConfig

        for repo_id, config, task in (
            (PUSHT, PushtEnv(), "Push the T-shaped block onto the T-shaped target."),
            (METAWORLD, LightMetaworldConfig(task="drawer-open-v3"), "Open a drawer"),
        ):
            prepare_stages(record_episodes(config, self.home / repo_id, task=task), self.folder / repo_id)

    @property
    def home(self) -> Path:
        """Folder for HF_LEROBOT_HOME, in which LeRobot looks for datasets."""
        return self.folder / "home"

    def settings(self, kind: str, repo_id: str) -> dict[str, Any]:
        """Return the settings of a small policy of type `kind` for a recorded dataset."""
        from policy_workshop import SMALL

        return {
            "chunk_size": 4,
            "n_action_steps": 2,
            "vla_checkpoint_path": str(self.folder / repo_id / "foundation"),
            **SMALL[kind],
        }

    def saved_policy(self, kind: str) -> str:
        """Save an untrained policy of type `kind` for PushT, if not done yet, and return its folder."""
        from lerobot.datasets.lerobot_dataset import LeRobotDatasetMetadata
        from lerobot.policies.factory import make_policy, make_policy_config, make_pre_post_processors

        folder = self.folder / "policies" / kind
        if not folder.is_dir():
            meta = LeRobotDatasetMetadata(PUSHT)
            config = make_policy_config(kind, **self.settings(kind, PUSHT))
            make_policy(config, ds_meta=meta).save_pretrained(folder)
            for pipeline in make_pre_post_processors(config, dataset_stats=meta.stats):
                pipeline.save_pretrained(folder)
        return str(folder)


# ---- How our types are put into each of LeRobot's test files ----

type Names = dict[str, Any]
"""Replacements for names in one of LeRobot's test modules."""


def names_in_test_policies(kind: str, module: ModuleType, test: str, materials: Materials) -> Names:
    """Return replacements for `test_policies.py`, whose tests name a policy type by a string or use ACT."""
    from policy_workshop import SMALL

    small = {"chunk_size": 4, "n_action_steps": 2, **SMALL[kind]}
    settings = WITHOUT_HUB.get(kind, {}) if test == "test_policy_defaults" else small
    make, get = module.make_policy_config, module.get_policy_class
    return {
        "make_policy_config": lambda _, **given: make(kind, **{**settings, **given}),
        "get_policy_class": lambda _: get(kind),
        "ACTConfig": get(kind).config_class,
    }


def names_in_processor_tests(kind: str, module: ModuleType, test: str, materials: Materials) -> Names:
    """Return replacements for a processor's test module, which imports one configuration class and one factory."""
    from lerobot.policies.factory import make_policy_config, make_pre_post_processors

    (config,) = (name for name in vars(module) if name.endswith("Config"))
    (factory,) = (name for name in vars(module) if name.endswith("_pre_post_processors"))
    return {
        config: lambda: make_policy_config(kind, **WITHOUT_HUB.get(kind, {})),
        factory: lambda config, dataset_stats=None: make_pre_post_processors(config, dataset_stats=dataset_stats),
    }


def names_in_test_cli_peft(kind: str, module: ModuleType, test: str, materials: Materials) -> Names:
    """Return replacements for `test_cli_peft.py`, which runs lerobot-train for one step.

    Worker processes are switched off, since each would import all packages for that step.
    """
    command = module.lerobot_train

    def lerobot_train(flags: list[str]) -> None:
        # The test of LeRobot 0.6.1 uses --peft.method, but the option is called --peft.method_type.
        known = [flag.replace("--peft.method=", "--peft.method_type=") for flag in flags]
        command([*known, "--num_workers=0"])

    return {"resolve_model_id_for_peft_training": materials.saved_policy, "lerobot_train": lerobot_train}


def of_policy_name(kind: str, materials: Materials) -> list[dict[str, Any]]:
    """Return the only case of a test with the parameter `policy_name`."""
    return [{"policy_name": kind}]


def of_simulators(kind: str, materials: Materials) -> list[dict[str, Any]]:
    """Return the cases of a test on a dataset and its simulator.

    LeRobot's test passes no task to the policy, so the instruction is set in the policy's configuration.
    """
    return [
        {
            "ds_repo_id": repo_id,
            "env_name": env,
            "env_kwargs": env_settings,
            "policy_name": kind,
            "policy_kwargs": {**materials.settings(kind, repo_id), "instruction": "Do what is to be done"},
        }
        for repo_id, env, env_settings in (
            (PUSHT, "pusht", {}),
            (METAWORLD, "hlrp_metaworld", {"task": "drawer-open-v3"}),
        )
    ]


def of_policy_type(kind: str, materials: Materials) -> list[dict[str, Any]]:
    """Return the only case of a test with the parameter `policy_type`."""
    return [{"policy_type": kind}]


def of_nothing(kind: str, materials: Materials) -> list[dict[str, Any]]:
    """Return the only case of a test without a parameter for the policy type; replaced names select the type."""
    return [{}]


@dataclass(frozen=True)
class TestFile:
    """A file of LeRobot's tests, and which of its tests run on our types."""

    path: str
    names: Callable[[str, ModuleType, str, Materials], Names]
    """Function that returns the replaced names, given a policy type, the test module, the test and the materials."""
    cases: Mapping[str, Callable[[str, Materials], list[dict[str, Any]]]] = field(default_factory=dict)
    """Tests to run, each with a function that returns the values of its parameters; if empty, all tests run."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Tests that are not run, each with the reason."""


FILES = (
    TestFile(
        "tests/policies/test_policies.py",
        names_in_test_policies,
        cases={
            "test_get_policy_and_config_classes": of_policy_name,
            "test_policy": of_simulators,
            "test_policy_defaults": of_policy_name,
            "test_save_and_load_pretrained": of_policy_name,
            "test_save_pretrained_with_state_dict": of_nothing,
            "test_multikey_construction": of_nothing,
        },
        left_out={
            "test_act_backbone_lr": "counts the parameters of ACT's ResNet",
            "test_backward_compatibility": "compares with recorded outputs of LeRobot's own policies",
            "test_act_temporal_ensembler": "tests a class of ACT",
            "test_vqbet_discretize_keeps_buffers_on_device": "tests a class of VQ-BeT",
        },
    ),
    TestFile("tests/processor/test_act_processor.py", names_in_processor_tests),
    TestFile("tests/processor/test_diffusion_processor.py", names_in_processor_tests),
    TestFile("tests/processor/test_vqbet_processor.py", names_in_processor_tests),
    TestFile(
        "tests/test_cli_peft.py",
        names_in_test_cli_peft,
        cases={
            "test_peft_training_push_to_hub_works": of_policy_type,
            "test_peft_training_params_are_fewer": of_policy_type,
        },
        left_out={"test_peft_training_works": "looks for the names of SmolVLA's projections"},
    ),
)


# ---- The pytest plugin ----


class OurTypes:
    """Pytest plugin that runs LeRobot's tests on our policy types and collects the outcomes."""

    def __init__(self, root: Path, materials: Materials) -> None:
        self.root = root
        self.materials = materials
        self.outcomes: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
        """Outcome and reason of each case, by (file, test)."""

    def file_of(self, path: Path) -> TestFile:
        """Return the entry of `FILES` for a test file."""
        (found,) = (file for file in FILES if self.root / file.path == path)
        return found

    @pytest.hookimpl(tryfirst=True)
    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Parametrize a test with our types, in place of LeRobot's own parametrization of the same arguments."""
        file, test = self.file_of(metafunc.definition.path), metafunc.definition.name
        cases_of = file.cases.get(test, of_nothing)
        cases = {kind: cases_of(kind, self.materials) for kind in OURS}
        arguments = list(cases[OURS[0]][0])
        marks = metafunc.definition.own_markers
        marks[:] = [mark for mark in marks if mark.name != "parametrize" or not set(arguments) & _arguments(mark)]
        metafunc.parametrize(
            ["our_type", *arguments],
            [(kind, *case.values()) for kind, found in cases.items() for case in found],
            ids=[
                kind if len(found) == 1 else f"{kind}-{i}" for kind, found in cases.items() for i in range(len(found))
            ],
            indirect=["our_type"],
        )

    @pytest.fixture(autouse=True)
    def our_type(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        """Replace names in LeRobot's test module, so that the test runs on one of our types."""
        file = self.file_of(request.path)
        test = request.node.originalname
        for name, value in file.names(request.param, request.module, test, self.materials).items():
            monkeypatch.setattr(request.module, name, value)
        # LeRobot skips a test if the package gym_<environment> is missing; our environment is part of the plugin.
        monkeypatch.setitem(sys.modules["tests.utils"].__dict__, "is_package_available", _is_available)
        monkeypatch.setattr("huggingface_hub.ModelCard.validate", lambda card: None)  # asks the hub
        return request.param

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out tests that are not in `cases`, and note the reason; unknown tests belong to a newer LeRobot."""
        kept = []
        for item in items:
            assert isinstance(item, pytest.Function)
            file, test = self.file_of(item.path), item.originalname
            if not file.cases or test in file.cases:
                kept.append(item)
            else:
                reason = file.left_out.get(test, "unknown to this script: a newer LeRobot has it")
                self.outcomes[file.path, test] = [("left out", reason)]
        items[:] = kept

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Function, call: pytest.CallInfo[None]) -> Any:
        """Note the outcome of a case: of the test itself, or of a set-up or tear-down that did not pass."""
        report = yield
        if report.when == "call" or report.outcome != "passed":
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext[-400:]
            self.outcomes[self.file_of(item.path).path, item.originalname].append((report.outcome, reason))
        return report

    def summary(self) -> Iterable[str]:
        """Yield a line for every test file and every test."""
        for path in (file.path for file in FILES):
            yield f"\n{path}"
            for (where, test), cases in self.outcomes.items():
                if where == path:
                    yield f"  {test}: {_told(cases)}"


def _is_available(pkg_name: str, **options: Any) -> bool:
    """Replacement for LeRobot's function: our environment counts as an installed package."""
    from lerobot.utils.import_utils import is_package_available

    return pkg_name == "gym_hlrp_metaworld" or is_package_available(pkg_name, **options)


def _arguments(mark: pytest.Mark) -> set[str]:
    """Return the names of the arguments in a `parametrize` mark."""
    names = mark.args[0]
    return {name.strip() for name in (names.split(",") if isinstance(names, str) else names)}


def _told(cases: list[tuple[str, str]]) -> str:
    """Format the outcomes of a test: how often each occurred, and the reasons of those that did not pass."""
    counts = Counter(outcome for outcome, _ in cases)
    reasons = sorted({reason.removeprefix("Skipped: ") for outcome, reason in cases if outcome != "passed"})
    return ", ".join(
        [outcome if outcome == "left out" else f"{number} {outcome}" for outcome, number in counts.items()]
    ) + "".join(f"\n      {reason}" for reason in reasons)


# ---- The script ----


def export(repo: Path, revision: str, folder: Path, *parts: str) -> None:
    """Extract files and folders, `parts`, of a revision of LeRobot from the clone `repo` into `folder`.

    Raises:
        SystemExit: If `repo` is not a clone of LeRobot with this revision.
    """
    command = ["git", "-C", str(repo), "archive", "--format=tar", revision, *parts]
    found = subprocess.run(command, capture_output=True, check=False)
    if found.returncode:
        raise SystemExit(
            f"{repo} must be a clone of huggingface/lerobot with the revision {revision}; git says: "
            f"{found.stderr.decode().strip()}"
        )
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")


def main() -> int:
    """Run the tests and print the summary; returns the exit status of pytest, 0 if no test failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lerobot_repo", type=Path, required=True, help="a clone of huggingface/lerobot")
    options, pytest_flags = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        export(options.lerobot_repo, f"v{version('lerobot')}", folder / "lerobot", "tests")
        materials = Materials(folder)
        # LeRobot reads these variables at its import, so this script imports LeRobot only inside functions.
        os.environ |= {"HF_LEROBOT_HOME": str(materials.home), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]
        import lerobot_policy_felix_bundle  # noqa: F401  registers the types

        materials.record()
        plugin = OurTypes(folder / "lerobot", materials)
        paths = [str(folder / "lerobot" / file.path) for file in FILES]
        os.chdir(folder / "lerobot")  # some tests use file names relative to the repository
        flags = ["-q", "-p", "no:cacheprovider", "-W", "ignore", "--tb=short", f"--rootdir={folder / 'lerobot'}"]
        status = pytest.main([*flags, *pytest_flags, *paths], plugins=[plugin])
        print(*plugin.summary(), sep="\n")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
