"""Methods of the few-labels benchmark, and the cells of its table: a method, a number of labelled episodes, a seed."""

from __future__ import annotations

from dataclasses import dataclass

CLEAN, BALL = "clean", "ball"
"""Worlds: the tasks alone, or with a large ball that moves on its own."""
ALL = 0
"""Budget of cells that use all labels."""


def budget_name(budget: int) -> str:
    """Name of a budget in results: the labelled episodes of each task, or all."""
    return "all" if budget == ALL else str(budget)


WITHOUT_VIDEO = ("no_video", "action_codes")
"""Label sets of the labelled episodes alone."""
BY_BUDGET = ("student", *WITHOUT_VIDEO)
"""Label sets that differ between numbers of labelled episodes."""


@dataclass(frozen=True)
class Method:
    """How a policy is trained."""

    policy: str
    """`bc`: the latent policy's expert without latents; `act`; or one of our policy types."""
    data: str = "labelled"
    """Where the policy's actions come from: `labelled` episodes, `all` episodes, or actions that an inverse dynamics
    model predicted, which started from random weights (`scratch`) or from the LAQ's encoder (`laq`)."""
    codes: str | None = None
    """Labels and foundation model that the policy starts from; None for a policy without latent labels.

    - `laq`: of the LAQ.
    - `random`: of an untrained LAQ.
    - `oracle`: of the true actions of all episodes.
    - `student`: of a LAQ that learns from the actions that the inverse dynamics model `scratch` predicted.
    - `no_video`: of a LAQ that sees the labelled episodes alone, as do foundation model and policy.
    - `action_codes`: of the actions of the labelled episodes; foundation model and policy see these alone.
    """
    random_shift: bool = False
    """Whether LeRobot shifts every picture at random in training; our policies do so themselves by default."""

    def label_set(self, budget: int) -> str | None:
        """Name of the method's labels, None without; with the number of labelled episodes if they depend on it."""
        return f"{self.codes}_{budget}" if self.codes in BY_BUDGET else self.codes

    @property
    def needs_labels_of_pseudo(self) -> bool:
        """Whether the dataset with predicted actions has to be labelled; the student's labels belong to it already."""
        return self.data in ("scratch", "laq") and self.codes not in (None, "student")

    @property
    def learns_from(self) -> str:
        """What the policy learns from, in words for plots."""
        if self.data == "all":
            return "all true actions, for comparison"
        if self.codes in ("random", "oracle", *WITHOUT_VIDEO):
            return "labelled episodes, codes of a control"
        if self.data == "labelled":
            return "labelled episodes" if self.codes is None else "labelled episodes, latents of all video"
        return "actions predicted from all video"


METHODS = {
    "bc": Method("bc"),
    "act": Method("act"),
    "act_augmented": Method("act", random_shift=True),
    "idm_bc": Method("bc", data="scratch"),
    "pseudo_bc": Method("bc", data="laq"),
    "pseudo_act": Method("act", data="laq"),
    "pseudo_act_augmented": Method("act", data="laq", random_shift=True),
    "pseudo_latent": Method("hlrp_action_expert_latent", data="laq", codes="laq"),
    "pseudo_vla_direct": Method("hlrp_vla_direct", data="laq", codes="laq"),
    "random_laq": Method("hlrp_action_expert_latent", codes="random"),
    "hlrp_vla_direct": Method("hlrp_vla_direct", codes="laq"),
    "hlrp_action_expert_latent": Method("hlrp_action_expert_latent", codes="laq"),
    "hlrp_action_expert_direct": Method("hlrp_action_expert_direct", codes="laq"),
    "student_vla_direct": Method("hlrp_vla_direct", codes="student"),
    "student_latent": Method("hlrp_action_expert_latent", codes="student"),
    "pseudo_student_vla_direct": Method("hlrp_vla_direct", data="scratch", codes="student"),
    "no_video_vla_direct": Method("hlrp_vla_direct", codes="no_video"),
    "action_codes_vla_direct": Method("hlrp_vla_direct", codes="action_codes"),
    "oracle": Method("hlrp_action_expert_latent", codes="oracle"),
    "all_labels": Method("hlrp_action_expert_latent", data="all", codes="laq"),
    "all_labels_vla_direct": Method("hlrp_vla_direct", data="all", codes="laq"),
    "all_labels_bc": Method("bc", data="all"),
    "all_labels_act": Method("act", data="all"),
    "all_labels_act_augmented": Method("act", data="all", random_shift=True),
}
"""Methods by their name in the results.

- `idm_bc` and `pseudo_bc` differ in the weights from which the inverse dynamics model starts.
- `random_laq` and `oracle` are the lower and the upper bound: codes of an untrained quantizer, and codes of the true
  actions of all episodes.
- `no_video_vla_direct` and `action_codes_vla_direct` show what `hlrp_vla_direct` owes to the video: they have its
  network and its stages, and the labelled episodes alone.
"""

_TEN_ROWS = ("bc", "pseudo_bc", "hlrp_vla_direct")
_BALL_ROWS = (
    "bc",
    "idm_bc",
    "pseudo_bc",
    "hlrp_vla_direct",
    "pseudo_vla_direct",
    "student_vla_direct",
    "pseudo_student_vla_direct",
)
_QUICK = ("bc", "idm_bc", "pseudo_bc", "hlrp_vla_direct")


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
        cells += [Cell(CLEAN, name, ALL, seed) for name, method in METHODS.items() if method.data == "all"]
    for seed in range(seeds):
        cells += [Cell(CLEAN, method, 3, seed) for method in few]
    for seed in range(seeds):
        cells += [Cell(BALL, method, 1, seed) for method in _BALL_ROWS]
    for seed in range(seeds):
        cells += [Cell(CLEAN, method, 10, seed) for method in _TEN_ROWS]
    return cells
