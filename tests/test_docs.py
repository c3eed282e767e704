"""The documentation against the code: the site builds, every command that it shows is valid, and its paths run."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from types import ModuleType

import draccus
import pytest
from lerobot.configs import parser
from lerobot.configs.train import TrainPipelineConfig
from mkdocs.config.defaults import MkDocsConfig

import hlrp
import lerobot_policy_felix_bundle  # noqa: F401  registers the policies
from hlrp.cli.common import read_options
from hlrp.options.check_leak import split_flags
from tiny_datasets import CAMERA, moving_square
from tiny_videos import write_pictures

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
OTHER_COMMANDS = (
    "bash",
    "hf",
    "lerobot-edit-dataset",
    "lerobot-eval",
    "lerobot-rollout",
    "lerobot-train",
    "python",
    "torchrun",
)


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    """The hook of mkdocs that writes the generated pages."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module("docs_pages")
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def blocks(page: Path) -> list[str]:
    """Shell blocks of a page."""
    return re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


# ---- The site ----


@pytest.mark.slow
def test_the_site_builds_without_a_broken_link_and_needs_no_other_server(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={tmp_path}"],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr[-3000:]
    pages = {page.relative_to(tmp_path).with_suffix(".md") for page in tmp_path.rglob("*.html")}
    assert {page.relative_to(ROOT / "docs") for page in PAGES} <= pages
    for page in tmp_path.rglob("*.html"):
        assert re.findall(r'(?:src|<link[^>]*href)="https?://[^"]*"', page.read_text(encoding="utf-8")) == []


def test_a_page_that_the_navigation_does_not_name_is_added_to_its_end(generated: ModuleType, tmp_path: Path) -> None:
    config = MkDocsConfig()
    config.load_dict({"site_name": "x", "docs_dir": str(tmp_path), "nav": ["index.md", {"How to": ["howto/a.md"]}]})
    (tmp_path / "howto").mkdir()
    for name in ("index.md", "howto/a.md", "howto/b.md"):
        (tmp_path / name).touch()
    assert generated.on_config(config).nav == ["index.md", {"How to": ["howto/a.md"]}, "howto/b.md"]


def test_every_command_and_option_is_in_the_reference(generated: ModuleType) -> None:
    page = generated.commands_page()
    kinds = generated.commands()
    assert "hlrp-check-leak" in kinds
    for name, kind in kinds.items():
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert [field.name for field in fields(kind) if field.init and f"`--{field.name}" not in section] == []
    assert "| `--optimizer.lr` | `0.002` | Peak learning rate." in page
    assert re.search(r"\| `--[\w.]+` \| [^|]* \|  \|", page) is None, "an option has no explanation"


def test_every_policy_type_is_in_the_reference(generated: ModuleType) -> None:
    page = generated.policies_page()
    assert re.findall(r"^## (\w+)$", page, flags=re.MULTILINE) == [
        "hlrp_action_expert_direct", "hlrp_action_expert_latent", "hlrp_diffusion", "hlrp_vla", "hlrp_vla_direct",
    ]  # fmt: skip
    assert "| `--policy.latent_loss_weight` |" in page


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: ([\w.]+)$", page, flags=re.MULTILINE)
    assert set(hlrp.__all__) <= {name.rpartition(".")[2] for name in shown}
    for name in shown:
        module, _, attribute = name.rpartition(".")
        assert getattr(importlib.import_module(module), attribute).__doc__


def test_every_paper_that_the_code_follows_is_cited() -> None:
    cited = (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")
    texts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    numbers = set(re.findall(r"arXiv:(\d{4}\.\d{5})", texts))
    assert numbers
    assert [number for number in sorted(numbers) if number not in cited] == []


@cache
def texts_of_the_code() -> str:
    """All string constants of src/, each on its own line."""
    found: list[str] = []
    for path in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return "\n".join(found)


def test_every_message_of_the_troubleshooting_page_exists() -> None:
    page = (ROOT / "docs" / "howto" / "troubleshooting.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|", page, flags=re.MULTILINE)
    assert len(rows) > 20
    assert [message for message in rows if message not in texts_of_the_code()] == []


# ---- Every command that is shown ----


def recorded(page: Path, folder: Path) -> list[list[str]]:
    """Words of every command in the shell blocks of `page`, as the shell gives them to programs."""
    programs, log = folder / "bin", folder / "log"
    programs.mkdir()
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    script = f'#!/bin/sh\nprintf \'%s\\0\' "$(basename "$0")" "$@" >> {log}\nprintf \'\\1\\0\' >> {log}\n'
    for name in [*our_commands(), *OTHER_COMMANDS]:
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    env = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    bash = shutil.which("bash")
    assert bash is not None
    subprocess.run([bash, "-uc", "\n".join(blocks(page))], cwd=folder, env=env, check=False, capture_output=True)
    calls = log.read_text(encoding="utf-8").split("\1\0") if log.exists() else []
    return [call.split("\0")[:-1] for call in calls if call]


@cache
def our_commands() -> list[str]:
    return re.findall(r"^(hlrp-[\w-]+) = ", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)


def parse_training(flags: list[str]) -> None:
    """Read flags of lerobot-train, without what it reads from a saved policy."""
    if parser.parse_arg("config_path", flags) is None:
        draccus.parse(TrainPipelineConfig, args=parser.filter_path_args("policy", flags))


def validated(command: list[str], generated: ModuleType) -> bool:
    """Whether this is a command whose options can be read; an option that does not exist ends the test."""
    name, *flags = command
    if name in ("torchrun", "python") and "-m" in flags:
        module = flags[flags.index("-m") + 1]
        name, flags = module.replace("hlrp.cli.", "hlrp-").replace("_", "-"), flags[flags.index(module) + 1 :]
    if name == "hlrp-check-leak":
        flags, lerobot_flags = split_flags(flags)
        parse_training(lerobot_flags)
    if name == "lerobot-train" and "--help" not in flags:
        parse_training(flags)
    elif name in generated.commands():
        read_options(generated.commands()[name], flags)
    else:
        return False
    return True


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.stem)
def test_every_option_of_every_command_in_the_documentation_exists(
    page: Path, tmp_path: Path, generated: ModuleType
) -> None:
    commands = recorded(page, tmp_path)
    read = [command[0] for command in commands if validated(command, generated)]
    shown = sum(
        len(re.findall(r"^(?:hlrp-[\w-]+|lerobot-train) ", block, flags=re.MULTILINE)) for block in blocks(page)
    )
    assert len(read) >= shown - sum("--help" in command for command in commands)


# ---- The paths from a dataset to a policy, run for real ----


SMALL = {
    "hlrp-train-laq": "--preset=debug --steps=2 --batch_size=4",
    "hlrp-pseudo-label": "--model.steps=2 --model.batch_size=4 --model.members=1 --model.folds=2",
    "lerobot-train": "--steps=2 --batch_size=4 --num_workers=0 --policy.pretrained_backbone_weights=null",
    "hlrp-check-leak": "--policy.pretrained_backbone_weights=null",
}
"""Options that make a command small, by command; those that train ACT load no weights from the internet."""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    """Run a shell script with the commands of this checkout, in an empty folder; with `options`, every command gets
    further options at its end."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()

    def write_programs(options: Mapping[str, str]) -> None:
        modules = {name: f"hlrp.cli.{name.removeprefix('hlrp-').replace('-', '_')}" for name in our_commands()}
        for name, module in {**modules, "lerobot-train": "lerobot.scripts.lerobot_train"}.items():
            command = f'exec "{sys.executable}" -m {module} "$@" {options.get(name, "")}'
            (programs / name).write_text(f"#!/bin/sh\n{command}\n")
            (programs / name).chmod(0o755)

    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src")}

    def run_script(script: str, options: Mapping[str, str] | None = None) -> None:
        write_programs(options or {})
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, f"{ended.stdout[-2000:]}\n{ended.stderr[-3000:]}"

    return run_script


def with_values(script: str, **values: object) -> str:
    """`script` with other values of the variables that it sets at the start of a line."""
    for name, value in values.items():
        script, count = re.subn(rf"^{name}=.*$", f"{name}={value}", script, flags=re.MULTILINE)
        assert count == 1, name
    return script


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """Folder of one film."""
    folder = tmp_path / "films"
    folder.mkdir()
    write_pictures(folder / "film.mp4", list(moving_square(20, seed=9)[0]))
    return folder


@pytest.mark.slow
def test_the_path_of_the_readme_runs(
    run: Callable[[str], None], image_dataset_root: Path, films: Path, tmp_path: Path
) -> None:
    script = with_values(blocks(ROOT / "README.md")[2], DATA=image_dataset_root, FILMS=films, STEPS=2)
    run(script.partition("# Run the policy on your robot")[0])
    assert (tmp_path / "outputs" / "mine" / "laq_report" / "report.html").is_file()
    assert (tmp_path / "outputs" / "mine" / "policy" / "checkpoints" / "last" / "pretrained_model").is_dir()


@pytest.mark.slow
def test_the_path_from_few_labels_runs(
    run: Callable[[str], None], video_dataset_root: Path, films: Path, tmp_path: Path
) -> None:
    page = ROOT / "docs" / "howto" / "few_labels.md"
    run(with_values(blocks(page)[0], DATA=video_dataset_root, FILMS=films, STEPS=2))
    assert (tmp_path / "outputs" / "films" / "policy" / "checkpoints" / "last" / "pretrained_model").is_dir()


@pytest.mark.slow
def test_the_tutorial_runs(run: Callable[[str], None], tmp_path: Path) -> None:
    from hlrp.sim.gl_backend import choose_gl_backend

    try:
        choose_gl_backend()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    script = "\n".join(blocks(ROOT / "docs" / "tutorial.md"))
    run(with_values(script, TASKS="button-press-topdown-v3", EPISODES=6, STEPS=2, TRIALS=1))
    assert (tmp_path / "outputs" / "tutorial" / "eval" / "eval_info.json").is_file()


@pytest.mark.slow
def test_the_commands_of_the_how_to_pages_run(
    run: Callable[..., None], video_dataset_root: Path, films: Path, tmp_path: Path
) -> None:
    howto, explanation = ROOT / "docs" / "howto", ROOT / "docs" / "explanation"
    shutil.copytree(video_dataset_root, tmp_path / "outputs" / "demos")
    with_films, mixed = blocks(howto / "films.md")
    pseudo_labels, student = blocks(howto / "few_labels.md")[3:5]
    logged, _, page = blocks(howto / "watch.md")[:3]
    policy = "--policy.push_to_hub=false --dataset.repo_id=local/demos --dataset.root=outputs/demos"
    script = "\n".join(
        [
            f'DATA=outputs/demos; FILMS={films}; TASK="move the square"; CAMERA={CAMERA}',
            with_films,
            mixed,
            logged,
            "hlrp-precompute-latent-codes --dataset_root=outputs/demos --laq_path=outputs/laq",
            page.replace("[0,5,9]", "[0,1]"),
            f"lerobot-train --policy.type=act {policy} --output_dir=outputs/policy",
            blocks(explanation / "no_leak.md")[0],
            pseudo_labels,
            student.replace("outputs/completed", "outputs/completed_2").replace("outputs/laq", "outputs/laq_2"),
        ]
    )
    run(script, SMALL)
    for written in (
        "laq_films/model.safetensors",
        "laq_mix/model.safetensors",
        "laq.jsonl",
        "labels_view/report.html",
        "act/checkpoints/last",
        "completed_2/latents/labels.json",
    ):
        assert (tmp_path / "outputs" / written).exists(), written
    assert (tmp_path / "leak.json").is_file()


@pytest.mark.slow
def test_the_commands_of_usage_and_scale_run(
    run: Callable[..., None], video_dataset_root: Path, films: Path, tmp_path: Path
) -> None:
    """Without those that need a simulator, which the tutorial's test runs, weights of others, or a cluster."""
    pytest.importorskip("datatrove")
    usage, scale = ROOT / "docs" / "usage.md", ROOT / "docs" / "scale.md"
    shutil.copytree(video_dataset_root, tmp_path / "outputs" / "demos")
    assert films == tmp_path / "films", "the pages call this folder films"
    shown = "\n".join([*blocks(usage), blocks(ROOT / "docs" / "howto" / "gpus.md")[0]])
    paragraphs = [
        paragraph
        for paragraph in re.split(r"\n\s*\n", shown)
        if not any(name in paragraph for name in ("droid", "lapa", "collect-demos", "lerobot-eval"))
    ]
    one_process, local = blocks(scale)[0].split("\n\n")[1:3]
    local = local.replace("--workers=16 --tasks=64", "--workers=2 --tasks=2")
    script = "\n\n".join([*paragraphs, "DATA=outputs/demos", one_process, local])
    script = re.sub(r"--steps=1000\b", "--steps=4", re.sub(r"--steps=500\b", "--steps=2", script))
    script = script.replace('teacher_offsets="[8]"', 'teacher_offsets="[1]"')  # frames in 0.1 s, here at 10 per second
    one_device = "--num_workers=0 --trainer.devices=1 --trainer.precision=32-true"
    run(
        script,
        {
            "hlrp-train-laq": f"{SMALL['hlrp-train-laq']} {one_device}",
            "hlrp-train-foundation": "--steps=2 --batch_size=4",
            "hlrp-precompute-latent-codes": "--overwrite=true",
            "lerobot-train": "--batch_size=4",
        },
    )
    for written in (
        "laq_mix/model.safetensors",
        "laq_gpus/model.safetensors",
        "demos/latents/labels.json",
        "demos_labelled/meta/info.json",
        "laq_report/report.html",
        "foundation_smol/model.safetensors",
        "foundation_online/model.safetensors",
        "policy/checkpoints/000004/pretrained_model/model.safetensors",
        "policy_direct/checkpoints/last",
        "policy_latent/checkpoints/last",
    ):
        assert (tmp_path / "outputs" / written).exists(), written
