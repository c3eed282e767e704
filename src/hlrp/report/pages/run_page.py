"""Report of a demo run as a single HTML file: plots and videos are embedded, and there is no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from hlrp.measure.success_rate import task_successes
from hlrp.report.durations import duration
from hlrp.report.pages.contents import require_complete
from hlrp.report.pages.parts import concluded, facts, figure, judged, page, section, table, video_tiles
from hlrp.report.verdicts.foundation import foundation_conclusion, foundation_verdicts
from hlrp.report.verdicts.latent import latent_conclusion, latent_verdicts
from hlrp.report.verdicts.rows import Conclusion, Verdict

_TITLE = "HLRP: from video to robot actions"

_PIPELINE = (
    (
        "Collect",
        "a scripted expert solves Meta-World tasks; images, actions and instructions are recorded",
    ),
    (
        "LAQ",
        "a quantizer learns a few discrete codes for the change from frame t to a later frame; it uses no actions",
    ),
    ("Label", "the quantizer labels every frame of the dataset with the codes of the clip that starts there"),
    (
        "Foundation",
        "a small vision-language model learns to predict the codes from one frame and the instruction",
    ),
    (
        "Policy",
        "a robot policy learns to turn the codes into continuous actions; the policy is tested in simulation",
    ),
)

_CAPTIONS = {
    "success": "Share of episodes solved, with 95 % Wilson intervals.",
    "latent_quality": "How well a linear map predicts the next actions (R²). Useful codes improve on the pixels of "
    "frame t alone.",
    "reconstruction": "Frames that the quantizer predicts from frame t and the codes, and the predicted motion.",
    "code_usage": "Share of clips with each code, for each slot, on held-out episodes.",
    "loss_curves": "Training loss of each stage.",
    "stage_time": "Wall time of each stage.",
}


def render_report(report: Mapping[str, Any], plots: Mapping[str, bytes], videos: Mapping[str, Path]) -> str:
    """Render the report of a demo run as HTML.

    Args:
        report: Metrics of the run, with the keys of `hlrp.report.pages.contents`.
        plots: PNG files by name: `success`, `latent_quality`, `reconstruction`, `code_usage`, `loss_curves`
            and `stage_time` appear in their sections, any other plot at the end under its own name.
        videos: One rollout video for each task; large videos are embedded as a smaller copy.

    Returns:
        A complete HTML page.

    Raises:
        ValueError: If a metric is missing, a success rate is no fraction, or a video is empty.
        FileNotFoundError: If a video does not exist.
    """
    require_complete(report)

    def plot(name: str) -> str:
        return figure(_CAPTIONS.get(name, name), plots[name]) if name in plots else ""

    others = "".join(plot(name) for name in plots if name not in _CAPTIONS)
    quality = report["foundation"]
    sections = (
        _header(report),
        section("The pipeline", _list(_PIPELINE)),
        section("Success per task", _success(report["policies"]), plot("success")),
        section("Rollouts", video_tiles(videos)) if videos else "",
        section(
            "Latent actions", _verdicts(latent_conclusion(report["laq"]), latent_verdicts(report["laq"])),
            plot("latent_quality"), plot("reconstruction"), plot("code_usage"),
        ),
        section("Foundation model", _verdicts(foundation_conclusion(quality), foundation_verdicts(quality))),
        section("Training", plot("loss_curves")) if "loss_curves" in plots else "",
        section("Time and memory", _times(report), plot("stage_time")),
        section("More plots", others) if others else "",
        section("Commands and versions of this run", _commands(report["commands"]), _versions(report)),
    )  # fmt: skip
    return page(_TITLE, "".join(sections))


def _verdicts(conclusion: Conclusion, verdicts: Sequence[Verdict]) -> str:
    return concluded(conclusion) + judged(verdicts)


def _header(report: Mapping[str, Any]) -> str:
    name, card = next(iter(report["policies"].items()))
    low, high = card["interval"]
    tiles = [
        (
            f"{card['success_rate']:.0%}",
            f"of {card['episodes']} episodes solved by {name} ({low:.0%} … {high:.0%})",
        ),
        (duration(report["seconds_total"]), "for all stages on one machine"),
    ]
    if (r2 := report["laq"]["probe_r2"]) is not None:
        tiles.insert(1, (f"{r2:.2f}", "R² from latent codes to actions, on held-out episodes; 1 is perfect"))
    return f"<header><h1>{_TITLE}</h1>{facts(tiles)}</header>\n"


def _list(steps: Sequence[tuple[str, str]]) -> str:
    return "<ol>" + "".join(f"<li><b>{escape(name)}:</b> {escape(text)}</li>" for name, text in steps) + "</ol>\n"


def _success(policies: Mapping[str, Any]) -> str:
    successes = task_successes(policies)
    tasks = dict.fromkeys(task for by_task in successes.values() for task in by_task)
    rows = []
    for task in tasks:
        cells = [
            _rate(*successes[policy][task], card["task_episodes"][task]) if task in card["tasks"] else "–"
            for policy, card in policies.items()
        ]
        rows.append([escape(task), *cells])
    rows.append(["<b>all</b>", *(_overall(card) for card in policies.values())])
    rows.append(["training time", *(escape(duration(card["train_seconds"])) for card in policies.values())])
    return table(["task", *(escape(policy) for policy in policies)], rows)


def _rate(rate: float, low: float, high: float, episodes: int) -> str:
    return f"<b>{rate:.0%}</b> <small>{low:.0%} … {high:.0%}, {episodes} episodes</small>"


def _overall(card: Mapping[str, Any]) -> str:
    low, high = card["interval"]
    return _rate(card["success_rate"], low, high, card["episodes"])


def _times(report: Mapping[str, Any]) -> str:
    total = report["seconds_total"]
    rows = [
        [escape(name), escape(duration(seconds)), f"{seconds / total:.0%}"]
        for name, seconds in report["stages"].items()
    ]
    rows.append(["<b>in all</b>", f"<b>{escape(duration(total))}</b>", ""])
    rows.append(["peak memory", f"{report['peak_memory_gib']:.1f} GiB", ""])
    return table(["stage", "time", "share"], rows)


def _commands(commands: Mapping[str, str]) -> str:
    return "".join(
        f"<details open><summary>{escape(stage)}</summary><pre>{escape(command)}</pre></details>\n"
        for stage, command in commands.items()
    )


def _versions(report: Mapping[str, Any]) -> str:
    rows = [[escape(package), escape(str(version))] for package, version in report["versions"].items()]
    rows.append(["seed", escape(str(report["seed"]))])
    return table(["package", "version"], rows)
