"""What the methods of the few-labels benchmark need, and the commands that train and evaluate their policies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from benchmarks import few_labels_upstream as upstream
from benchmarks.few_labels_jobs import Job
from benchmarks.few_labels_methods import ALL, BY_BUDGET, CLEAN, METHODS, WITHOUT_VIDEO, Cell
from benchmarks.few_labels_tables import labeller_table
from benchmarks.forked import run_forked
from benchmarks.laq import TASKS
from benchmarks.policy_runs import delete_policy, evaluate_policy, train_policy, trained_record
from benchmarks.policy_success import POLICIES
from hlrp.storage.files import write_json

EPISODES_PER_TASK = 30
"""Episodes of each task that are available as video."""

_SHIFT = {"type": "RandomAffine", "kwargs": {"degrees": 0, "translate": [2 / 64, 2 / 64]}}
RANDOM_SHIFT = (
    "--dataset.image_transforms.enable=true",
    "--dataset.image_transforms.max_num_transforms=1",
    f"--dataset.image_transforms.tfs={json.dumps({'shift': _SHIFT})}",
)
"""Options of lerobot-train that shift pictures of 64 pixels by up to 2, as our policies do by default."""


class Settings(Protocol):
    """Numbers of steps and sizes; see `BenchConfig`."""

    quick: bool
    steps: int
    laq_steps: int
    foundation_steps: int
    labeller_steps: int
    batch_size: int
    labeller_batch_size: int
    labeller_frames: int
    eval_episodes: int
    device: str

    @property
    def runs(self) -> Path: ...


class World:
    """Files of one world, and the jobs that write them."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name, self.settings = name, settings
        self.folder = settings.runs / name
        nuisance = "" if name == CLEAN else "_ball"
        self.dataset = settings.runs.parent / "data" / f"six_tasks_{EPISODES_PER_TASK}{nuisance}"

    def result(self, cell: Cell) -> Path:
        """JSON file of a finished cell."""
        return self.folder / "cells" / f"{cell.name}.json"

    def run(self, cell: Cell) -> Path:
        """Folder in which the policy of a cell is trained and evaluated."""
        return self.folder / "runs" / cell.name

    def labeller_scores(self, budget: int, seed: int) -> Path:
        """JSON file of R² of every labeller."""
        return self.folder / "labellers" / f"{budget}_{seed}.json"

    def quantizer(self, kind: str, seed: int) -> Path:
        """Folder of the LAQ of a label set."""
        return self.folder / f"laq_{kind}_{seed}"

    def labels(self, kind: str, seed: int) -> Path:
        """Folder of a label set."""
        return self.folder / f"labels_{kind}_{seed}"

    def foundation(self, kind: str, seed: int) -> Path:
        """Folder of a foundation model."""
        return self.folder / f"foundation_{kind}_{seed}"

    def pseudo(self, start: str, budget: int, seed: int) -> Path:
        """Folder of a pseudo-labelled dataset."""
        return self.folder / f"pseudo_{start}_{budget}_{seed}"

    def labels_of_pseudo(self, start: str, budget: int, seed: int) -> Path:
        """Folder of the LAQ's labels of a pseudo-labelled dataset: labels belong to a dataset with its actions."""
        return self.folder / f"labels_pseudo_{start}_{budget}_{seed}"

    def labelled_dataset(self, kind: str, seed: int) -> Path:
        """Folder of the dataset whose frames have the label set `kind`."""
        name, budget = _parts(kind)
        return self.pseudo("scratch", budget, seed) if name == "student" else self.dataset

    def labelled_episodes(self, budget: int, seed: int) -> list[int]:
        """Indices of the labelled episodes; the dataset must have been recorded."""
        return upstream.choose_episodes(self.dataset, budget=budget, seed=seed)

    def record(self) -> Job:
        """Job that records the dataset."""
        flags = [
            f"--output_dir={self.dataset}",
            f"--tasks=[{','.join(TASKS)}]",
            f"--episodes_per_task={EPISODES_PER_TASK}",
            f"--nuisance={'none' if self.name == CLEAN else 'distractor'}",
        ]
        log = self.dataset.with_suffix(".log")
        run = partial(run_forked, "hlrp.cli.collect_demos", *flags, log=log)
        return Job(f"recording {self.dataset.name}", self.dataset, run)

    def label_jobs(self, kind: str, seed: int) -> list[Job]:
        """Jobs that write a label set."""
        name, budget = _parts(kind)
        labels, quantizer = self.labels(kind, seed), self.quantizer(kind, seed)
        title = f"{kind}, {self.name}, seed {seed}"
        if name in ("oracle", "action_codes"):
            like = "laq" if name == "oracle" else f"no_video_{budget}"

            def run() -> None:
                episodes = self.labelled_episodes(budget, seed) if budget else None
                like_labels = self.labels(like, seed)
                upstream.write_action_codes(self.dataset, like_labels, labels, seed=seed, episodes=episodes)

            return [*self.label_jobs(like, seed), Job(f"codes of {title}", labels, run, (self.labels(like, seed),))]
        data = self.labelled_dataset(kind, seed)
        write = partial(upstream.write_codes, data, quantizer, labels, device=self.settings.device)
        return [*self._quantizer_jobs(kind, seed), Job(f"codes of {title}", labels, write, (quantizer,))]

    def _quantizer_jobs(self, kind: str, seed: int) -> list[Job]:
        """Jobs that write the LAQ of a label set."""
        name, budget = _parts(kind)
        data, quantizer = self.labelled_dataset(kind, seed), self.quantizer(kind, seed)
        title = f"LAQ {kind}, {self.name}, seed {seed}"
        if name == "random":
            like = self.quantizer("laq", seed)
            untrained = partial(upstream.random_quantizer, data, quantizer, like=like, seed=seed)
            return [*self._quantizer_jobs("laq", seed), Job(title, quantizer, untrained, (like,))]

        def run() -> None:
            flags = [f"--episodes={self.labelled_episodes(budget, seed)}"] if name == "no_video" else []
            upstream.train_quantizer(
                data,
                quantizer,
                steps=self.settings.laq_steps,
                seed=seed,
                device=self.settings.device,
                labelled=name == "student",
                flags=flags,
            )

        before = self.pseudo_jobs("scratch", budget, seed) if name == "student" else [self.record()]
        return [*before, Job(title, quantizer, run, (data,))]

    def foundation_jobs(self, kind: str, seed: int) -> list[Job]:
        """Jobs that train a foundation model on the label set `kind`."""
        labels, output = self.labels(kind, seed), self.foundation(kind, seed)
        name, budget = _parts(kind)

        def run() -> None:
            upstream.train_foundation(
                self.labelled_dataset(kind, seed),
                labels,
                output,
                steps=self.settings.foundation_steps,
                seed=seed,
                device=self.settings.device,
                episodes=self.labelled_episodes(budget, seed) if name in WITHOUT_VIDEO else None,
            )

        title = f"foundation on {kind}, {self.name}, seed {seed}"
        return [*self.label_jobs(kind, seed), Job(title, output, run, (labels,))]

    def pseudo_jobs(self, start: str, budget: int, seed: int) -> list[Job]:
        """Jobs that write a pseudo-labelled dataset."""
        laq = self.quantizer("laq", seed) if start == "laq" else None
        output = self.pseudo(start, budget, seed)

        def run() -> None:
            upstream.write_pseudo_actions(
                self.dataset,
                output,
                laq=laq,
                episodes=self.labelled_episodes(budget, seed),
                steps=self.settings.labeller_steps,
                batch_size=self.settings.labeller_batch_size,
                frames=self.settings.labeller_frames,
                seed=seed,
                device=self.settings.device,
            )

        title = f"pseudo-actions from {start}, {budget} labelled, {self.name}, seed {seed}"
        before = self.label_jobs("laq", seed) if start == "laq" else [self.record()]
        return [*before, Job(title, output, run, (laq or self.dataset,))]

    def pseudo_label_jobs(self, start: str, budget: int, seed: int) -> list[Job]:
        """Jobs that write a pseudo-labelled dataset and the LAQ's labels of it."""
        data, laq = self.pseudo(start, budget, seed), self.quantizer("laq", seed)
        labels = self.labels_of_pseudo(start, budget, seed)
        run = partial(upstream.write_codes, data, laq, labels, device=self.settings.device)
        title = f"codes of pseudo-actions from {start}, {budget} labelled, {self.name}, seed {seed}"
        before = [*self.pseudo_jobs(start, budget, seed), *self.label_jobs("laq", seed)]
        return [*before, Job(title, labels, run, (data, laq))]


_LAQ_NAMES = {
    "laq": "LAQ",
    "random": "random LAQ",
    "student": "student LAQ",
    "no_video": "LAQ of the labelled episodes alone",
}
"""Label sets whose codes are probed; the others are codes of the true actions."""


def _parts(kind: str) -> tuple[str, int]:
    """Name of a label set without the number of labelled episodes, and this number; 0 if it depends on none."""
    name, _, budget = kind.rpartition("_")
    return (name, int(budget)) if name in BY_BUDGET else (kind, 0)


def labeller_jobs(worlds: dict[str, World], cells: Sequence[Cell]) -> list[Job]:
    """Jobs of all labellers (inverse dynamics models, and probes of codes), and of their scores, which are printed."""
    jobs: list[Job] = []
    for name, budget, seed in dict.fromkeys((cell.world, cell.budget, cell.seed) for cell in cells):
        if budget == ALL:
            continue
        world = worlds[name]
        methods = [
            METHODS[cell.method] for cell in cells if (cell.world, cell.budget, cell.seed) == (name, budget, seed)
        ]
        starts = sorted({method.data for method in methods} & {"scratch", "laq"})
        found = {method.label_set(budget) for method in methods}
        kinds = sorted(kind for kind in found if kind is not None and _parts(kind)[0] in _LAQ_NAMES)
        parts = [world.pseudo_jobs(start, budget, seed) for start in starts]
        parts += [world.label_jobs(kind, seed) for kind in kinds]
        jobs += [world.record(), *(job for part in parts for job in part)]
        read = {f"pseudo-actions from {start}": world.pseudo(start, budget, seed) for start in starts}
        codes = {_LAQ_NAMES[_parts(kind)[0]]: world.labels(kind, seed) for kind in kinds}

        def run(
            world: World = world,
            budget: int = budget,
            seed: int = seed,
            codes: dict[str, Path] = codes,
            read: dict[str, Path] = read,
        ) -> None:
            episodes = world.labelled_episodes(budget, seed)
            output = world.labeller_scores(budget, seed)
            scores = upstream.write_labeller_scores(world.dataset, output, episodes=episodes, codes=codes, read=read)
            print(labeller_table({name: {str(budget): found} for name, found in scores.items()}), flush=True)

        title = f"scores of labellers, {name}, {budget} labelled, seed {seed}"
        jobs.append(Job(title, world.labeller_scores(budget, seed), run, (*codes.values(), *read.values())))
    return once(jobs)


def cell_jobs(worlds: dict[str, World], cells: Sequence[Cell], *, after_scores: bool = False) -> list[Job]:
    """Jobs that train and evaluate every cell without a result, and that write what it needs.

    Args:
        worlds: Worlds by name.
        cells: Cells, the most urgent first.
        after_scores: Evaluate a policy only after its labellers are scored (see `labeller_jobs`).
    """
    jobs: list[Job] = []
    for cell in cells:
        world, method = worlds[cell.world], METHODS[cell.method]
        if world.result(cell).is_file():
            continue
        jobs.append(world.record())
        needed = [world.dataset]
        kind = method.label_set(cell.budget)
        if kind is not None:
            jobs += world.foundation_jobs(kind, cell.seed)
            needed.append(world.foundation(kind, cell.seed))
        elif method.policy == "bc":  # it loads a foundation model that has no effect on its actions
            jobs += world.foundation_jobs("laq", cell.seed)
            needed.append(world.foundation("laq", cell.seed))
        if method.data in ("scratch", "laq"):
            jobs += world.pseudo_jobs(method.data, cell.budget, cell.seed)
            needed.append(world.pseudo(method.data, cell.budget, cell.seed))
        if method.needs_labels_of_pseudo:
            jobs += world.pseudo_label_jobs(method.data, cell.budget, cell.seed)
            needed.append(world.labels_of_pseudo(method.data, cell.budget, cell.seed))
        trained = trained_record(world.run(cell))
        title = f"{cell.method}, {cell.budget or 'all'} labelled, {cell.world}, seed {cell.seed}"
        jobs.append(Job(f"training {title}", trained, partial(_train, world, cell), tuple(needed)))
        scores = [world.labeller_scores(cell.budget, cell.seed)] if after_scores and cell.budget != ALL else []
        evaluate = partial(_evaluate, world, cell)
        jobs.append(Job(f"evaluating {title}", world.result(cell), evaluate, (trained, *scores)))
    return once(jobs)


def once(jobs: Sequence[Job]) -> list[Job]:
    """The first job of each output, in order."""
    first: dict[Path, Job] = {}
    for job in jobs:
        first.setdefault(job.output, job)
    return list(first.values())


def _train(world: World, cell: Cell) -> None:
    train_policy(world.run(cell), policy_flags(world, cell), world.settings, seed=cell.seed)


def _evaluate(world: World, cell: Cell) -> None:
    write_json(world.result(cell), evaluate_policy(world.run(cell), world.settings, tasks=TASKS))
    delete_policy(world.run(cell))


def policy_flags(world: World, cell: Cell) -> list[str]:
    """Options of lerobot-train that describe the policy of a cell and its data."""
    method = METHODS[cell.method]
    kind = method.label_set(cell.budget) or "laq"
    root, labels = world.labelled_dataset(kind, cell.seed), world.labels(kind, cell.seed)
    if method.data in ("scratch", "laq"):
        root = world.pseudo(method.data, cell.budget, cell.seed)
    if method.needs_labels_of_pseudo:
        labels = world.labels_of_pseudo(method.data, cell.budget, cell.seed)
    flags = ["--dataset.repo_id=local/hlrp_demos", f"--dataset.root={root}"]
    episodes: list[int] = []
    if method.data == "labelled":
        episodes = world.labelled_episodes(cell.budget, cell.seed)
    if method.policy == "act":
        chosen = [f"--dataset.episodes={episodes}"] if episodes else []
        augmentation = RANDOM_SHIFT if method.random_shift else ()
        return [*flags, *chosen, "--policy.type=act", *POLICIES["act"].flags, *augmentation]
    option = "--dataset.episodes" if method.codes in WITHOUT_VIDEO else "--policy.labelled_episodes"
    flags += [
        f"--policy.vla_checkpoint_path={world.foundation(kind, cell.seed)}",
        *([f"{option}={episodes}"] if episodes else []),
    ]
    if method.policy == "bc":
        return [*flags, "--policy.type=hlrp_action_expert_latent", "--policy.latent_conditioning=false"]
    frozen = ["--policy.freeze_vla=true"] if method.policy == "hlrp_action_expert_latent" else []
    if method.policy != "hlrp_action_expert_direct":  # by default, it learns nothing from labels
        flags.append(f"--policy.latent_labels_path={labels}")
    return [*flags, f"--policy.type={method.policy}", *frozen]
