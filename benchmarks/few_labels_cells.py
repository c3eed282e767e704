"""Methods of the few-labels benchmark, what each needs, and the commands that train and evaluate its policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from benchmarks import few_labels_upstream as upstream
from benchmarks.few_labels_jobs import Job
from benchmarks.laq import TASKS
from benchmarks.policy_runs import train_and_evaluate
from benchmarks.policy_success import POLICIES
from benchmarks.running import run_command
from hlrp.storage.files import write_json

CLEAN, BALL = "clean", "ball"
"""Worlds: the tasks alone, or with a large ball that moves on its own."""
EPISODES_PER_TASK = 30
"""Episodes of each task that are available as video."""
_ALL = 0
"""Budget of cells that use all labels."""


def budget_name(budget: int) -> str:
    """Name of a budget in results: the labelled episodes of each task, or all."""
    return "all" if budget == _ALL else str(budget)


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


@dataclass(frozen=True)
class Method:
    """How a policy is trained."""

    policy: str
    """`bc`: the latent policy's expert without latents; `act`; or one of our policy types."""
    data: str = "labelled"
    """Where the policy's actions come from: `labelled` episodes, `all` episodes, or actions that an inverse dynamics
    model predicted, which started from random weights (`scratch`) or from the LAQ's encoder (`laq`)."""
    codes: str | None = None
    """Labels and foundation model that the policy starts from: those of the LAQ (`laq`), of an untrained LAQ
    (`random`), of the true actions (`oracle`), or of a LAQ that learns from the actions that the inverse dynamics model
    `scratch` predicted (`student`); None for a policy without latent labels."""

    def label_set(self, budget: int) -> str | None:
        """Name of the method's labels, None without; `student` has labels for every number of labelled episodes."""
        return f"{_STUDENT}{budget}" if self.codes == "student" else self.codes

    @property
    def learns_from(self) -> str:
        """What the policy learns from, in words for plots."""
        if self.data == "all":
            return "all true actions, for comparison"
        if self.codes in ("random", "oracle"):
            return "labelled episodes, codes of a control"
        if self.data == "labelled":
            return "labelled episodes" if self.codes is None else "labelled episodes, latents of all video"
        return "actions predicted from all video"


_STUDENT = "student_"

METHODS = {
    "bc": Method("bc"),
    "act": Method("act"),
    "idm_bc": Method("bc", data="scratch"),
    "pseudo_bc": Method("bc", data="laq"),
    "pseudo_act": Method("act", data="laq"),
    "pseudo_latent": Method("hlrp_action_expert_latent", data="laq", codes="laq"),
    "random_laq": Method("hlrp_action_expert_latent", codes="random"),
    "hlrp_vla_direct": Method("hlrp_vla_direct", codes="laq"),
    "hlrp_action_expert_latent": Method("hlrp_action_expert_latent", codes="laq"),
    "hlrp_action_expert_direct": Method("hlrp_action_expert_direct", codes="laq"),
    "student_vla_direct": Method("hlrp_vla_direct", codes="student"),
    "student_latent": Method("hlrp_action_expert_latent", codes="student"),
    "oracle": Method("hlrp_action_expert_latent", codes="oracle"),
    "all_labels": Method("hlrp_action_expert_latent", data="all", codes="laq"),
    "all_labels_bc": Method("bc", data="all"),
    "all_labels_act": Method("act", data="all"),
}
"""Methods by their name in the results. `idm_bc` and `pseudo_bc` differ in the weights from which the inverse dynamics
model starts. `random_laq` and `oracle` are the lower and the upper bound: codes of an untrained quantizer, and codes
of the true actions."""

_THREE = ("bc", "pseudo_bc", "hlrp_action_expert_latent")
_BALL_ROWS = ("bc", "idm_bc", "pseudo_bc", "hlrp_vla_direct", "hlrp_action_expert_latent", "student_latent")
_QUICK = ("bc", "idm_bc", "pseudo_bc", "hlrp_action_expert_latent")


@dataclass(frozen=True)
class Cell:
    """One policy to train and to evaluate."""

    world: str
    method: str
    budget: int
    """Labelled episodes of each task; 0 for methods that use all labels."""
    seed: int

    @property
    def name(self) -> str:
        """Name of the cell's files."""
        return f"{self.method}_{self.budget}_{self.seed}"


def planned_cells(*, quick: bool, seeds: int) -> list[Cell]:
    """All cells, the most informative first: one labelled episode, then three, then the ball, then ten."""
    if quick:
        return [Cell(CLEAN, method, 1, 0) for method in _QUICK]
    few = [name for name, method in METHODS.items() if method.data != "all"]
    cells: list[Cell] = []
    for seed in range(seeds):
        cells += [Cell(CLEAN, method, 1, seed) for method in few]
        cells += [Cell(CLEAN, name, _ALL, seed) for name, method in METHODS.items() if method.data == "all"]
    for seed in range(seeds):
        cells += [Cell(CLEAN, method, 3, seed) for method in few]
    for seed in range(seeds):
        cells += [Cell(BALL, method, 1, seed) for method in _BALL_ROWS]
    for seed in range(seeds):
        cells += [Cell(CLEAN, method, 10, seed) for method in _THREE]
    return cells


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

    def labeller_scores(self, budget: int, seed: int) -> Path:
        """JSON file of R² of every labeller."""
        return self.folder / "labellers" / f"{budget}_{seed}.json"

    def quantizer(self, kind: str, seed: int) -> Path:
        """Folder of a LAQ, `laq` or `random`."""
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

    def labelled_dataset(self, kind: str, seed: int) -> Path:
        """Folder of the dataset whose frames have the label set `kind`."""
        budget = _student_budget(kind)
        return self.dataset if budget is None else self.pseudo("scratch", budget, seed)

    def record(self) -> Job:
        """Job that records the dataset."""
        flags = [
            f"--output_dir={self.dataset}",
            f"--tasks=[{','.join(TASKS)}]",
            f"--episodes_per_task={EPISODES_PER_TASK}",
            f"--nuisance={'none' if self.name == CLEAN else 'distractor'}",
        ]
        log = self.dataset.with_suffix(".log")
        run = partial(run_command, "hlrp.cli.collect_demos", *flags, log=log)
        return Job(f"recording {self.dataset.name}", self.dataset, run)

    def label_jobs(self, kind: str, seed: int) -> list[Job]:
        """Jobs that write a label set: codes of a trained LAQ, of an untrained one, or of the true actions."""
        if _student_budget(kind) is not None:
            return self._student_jobs(kind, seed)
        trained, labels = self.quantizer("laq", seed), self.labels(kind, seed)
        title = f"{self.name}, seed {seed}"
        steps = self.settings.laq_steps
        jobs = [
            self._job(
                f"LAQ, {title}",
                trained,
                upstream.train_quantizer,
                steps=steps,
                seed=seed,
                device=self.settings.device,
                after=[self.dataset],
            )
        ]
        if kind == "random":
            untrained = self.quantizer(kind, seed)
            run = partial(upstream.random_quantizer, like=trained, seed=seed)
            jobs.append(self._job(f"random LAQ, {title}", untrained, run, after=[trained]))
        if kind == "oracle":
            like = self.labels("laq", seed)
            run = partial(upstream.write_oracle_codes, self.dataset, like, labels, seed=seed)
            return [*self.label_jobs("laq", seed), Job(f"oracle codes, {title}", labels, run, (like,))]
        quantizer = self.quantizer(kind, seed)
        run = partial(upstream.write_codes, self.dataset, quantizer, labels, device=self.settings.device)
        return [*jobs, Job(f"codes of {kind}, {title}", labels, run, (quantizer,))]

    def _student_jobs(self, kind: str, seed: int) -> list[Job]:
        """Jobs that write the codes of a LAQ that learned from predicted actions."""
        budget, completed = _student_budget(kind), self.labelled_dataset(kind, seed)
        assert budget is not None
        quantizer, labels = self.quantizer(kind, seed), self.labels(kind, seed)
        title = f"{kind}, {self.name}, seed {seed}"
        options = {"steps": self.settings.laq_steps, "seed": seed, "device": self.settings.device, "labelled": True}
        train = partial(upstream.train_quantizer, completed, quantizer, **options)
        write = partial(upstream.write_codes, completed, quantizer, labels, device=self.settings.device)
        return [
            *self.pseudo_jobs("scratch", budget, seed),
            Job(f"LAQ {title}", quantizer, train, (completed,)),
            Job(f"codes of {title}", labels, write, (quantizer,)),
        ]

    def foundation_jobs(self, kind: str, seed: int) -> list[Job]:
        """Jobs that train a foundation model on the label set `kind`."""
        labels, output = self.labels(kind, seed), self.foundation(kind, seed)
        run = partial(
            upstream.train_foundation,
            self.labelled_dataset(kind, seed),
            labels,
            output,
            steps=self.settings.foundation_steps,
            seed=seed,
            device=self.settings.device,
        )
        title = f"foundation on {kind}, {self.name}, seed {seed}"
        return [*self.label_jobs(kind, seed), Job(title, output, run, (labels,))]

    def pseudo_jobs(self, start: str, budget: int, seed: int) -> list[Job]:
        """Jobs that write a pseudo-labelled dataset."""
        laq = self.quantizer("laq", seed) if start == "laq" else None
        output = self.pseudo(start, budget, seed)

        def run() -> None:
            episodes = upstream.choose_episodes(self.dataset, budget=budget, seed=seed)
            upstream.write_pseudo_actions(
                self.dataset,
                output,
                laq=laq,
                episodes=episodes,
                steps=self.settings.labeller_steps,
                batch_size=self.settings.labeller_batch_size,
                frames=self.settings.labeller_frames,
                seed=seed,
                device=self.settings.device,
            )

        title = f"pseudo-actions from {start}, {budget} labelled, {self.name}, seed {seed}"
        before = self.label_jobs("laq", seed) if start == "laq" else [self.record()]
        return [*before, Job(title, output, run, (laq or self.dataset,))]

    def _job(self, name: str, output: Path, run: Callable[..., None], *, after: Sequence[Path], **options: Any) -> Job:
        return Job(name, output, partial(run, self.dataset, output, **options), tuple(after))


_LAQ_NAMES = {"laq": "LAQ", "random": "random LAQ"}


def _student_budget(kind: str) -> int | None:
    """Labelled episodes of each task of the label set of a student; None for other label sets."""
    return int(kind.removeprefix(_STUDENT)) if kind.startswith(_STUDENT) else None


def labeller_jobs(worlds: dict[str, World], cells: Sequence[Cell]) -> list[Job]:
    """Jobs of all labellers (inverse dynamics models, and probes of codes), and of their scores."""
    jobs: list[Job] = []
    for name, budget, seed in dict.fromkeys((cell.world, cell.budget, cell.seed) for cell in cells):
        if budget == _ALL:
            continue
        world = worlds[name]
        methods = [
            METHODS[cell.method] for cell in cells if (cell.world, cell.budget, cell.seed) == (name, budget, seed)
        ]
        starts = sorted({method.data for method in methods} & {"scratch", "laq"})
        found = {method.label_set(budget) for method in methods}
        kinds = sorted(kind for kind in found if kind not in (None, "oracle"))
        parts = [world.pseudo_jobs(start, budget, seed) for start in starts]
        parts += [world.label_jobs(kind, seed) for kind in kinds]
        jobs += [world.record(), *(job for part in parts for job in part)]
        read = {f"pseudo-actions from {start}": world.pseudo(start, budget, seed) for start in starts}
        codes = {_LAQ_NAMES.get(kind, "student LAQ"): world.labels(kind, seed) for kind in kinds}

        def run(
            world: World = world,
            budget: int = budget,
            seed: int = seed,
            codes: dict[str, Path] = codes,
            read: dict[str, Path] = read,
        ) -> None:
            episodes = upstream.choose_episodes(world.dataset, budget=budget, seed=seed)
            output = world.labeller_scores(budget, seed)
            upstream.write_labeller_scores(world.dataset, output, episodes=episodes, codes=codes, read=read)

        title = f"scores of labellers, {name}, {budget} labelled, seed {seed}"
        jobs.append(Job(title, world.labeller_scores(budget, seed), run, (*codes.values(), *read.values())))
    return _once(jobs)


def cell_jobs(worlds: dict[str, World], cells: Sequence[Cell]) -> list[Job]:
    """Jobs that train and evaluate every cell, after everything that it needs."""
    jobs: list[Job] = []
    for cell in cells:
        world, method = worlds[cell.world], METHODS[cell.method]
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
        run = partial(_train_and_evaluate, world, cell)
        title = f"{cell.method}, {cell.budget or 'all'} labelled, {cell.world}, seed {cell.seed}"
        jobs.append(Job(title, world.result(cell), run, tuple(needed)))
    return _once(jobs)


def _once(jobs: Sequence[Job]) -> list[Job]:
    """The first job of each output, in order."""
    first: dict[Path, Job] = {}
    for job in jobs:
        first.setdefault(job.output, job)
    return list(first.values())


def _train_and_evaluate(world: World, cell: Cell) -> None:
    folder = world.folder / "runs" / cell.name
    flags = policy_flags(world, cell)
    write_json(world.result(cell), train_and_evaluate(folder, flags, world.settings, tasks=TASKS, seed=cell.seed))


def policy_flags(world: World, cell: Cell) -> list[str]:
    """Options of lerobot-train that describe the policy of a cell and its data."""
    method = METHODS[cell.method]
    kind = method.label_set(cell.budget) or "laq"
    root = world.labelled_dataset(kind, cell.seed)
    if method.data in ("scratch", "laq"):
        root = world.pseudo(method.data, cell.budget, cell.seed)
    flags = ["--dataset.repo_id=local/hlrp_demos", f"--dataset.root={root}"]
    episodes: list[int] = []
    if method.data == "labelled":
        episodes = upstream.choose_episodes(world.dataset, budget=cell.budget, seed=cell.seed)
    if method.policy == "act":
        chosen = [f"--dataset.episodes={episodes}"] if episodes else []
        return [*flags, *chosen, "--policy.type=act", *POLICIES["act"].flags]
    flags += [
        f"--policy.vla_checkpoint_path={world.foundation(kind, cell.seed)}",
        *([f"--policy.labelled_episodes={episodes}"] if episodes else []),
    ]
    if method.policy == "bc":
        return [*flags, "--policy.type=hlrp_action_expert_latent", "--policy.latent_conditioning=false"]
    frozen = ["--policy.freeze_vla=true"] if method.policy == "hlrp_action_expert_latent" else []
    labels = f"--policy.latent_labels_path={world.labels(kind, cell.seed)}"
    return [*flags, f"--policy.type={method.policy}", labels, *frozen]
