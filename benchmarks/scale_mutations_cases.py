"""The list of mutations that `benchmarks.scale_mutations` runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.scale_mutations_changes import Change, damage, entry, filled, hostile, tensors
from benchmarks.scale_mutations_data import DATASET_CHANGES, DATASET_FILES, IMAGE_CHANGES, LABEL_CHANGES

HUGE, NAN = 10**9, math.nan
_LOOP = "".join(f"{{% for {name} in range(99999) %}}" for name in "abc") + "{% endfor %}" * 3
_LONG = "{{ 'x' * 99999999999 }}"


@dataclass(frozen=True)
class Mutation:
    """One change of one artefact."""

    name: str
    entry: str
    """Name in `ENTRIES` of the way in which the artefact is loaded."""
    change: Change


def all_mutations() -> list[Mutation]:
    """Every mutation, in a fixed order; names are unique."""
    files = {
        "videos": DATASET_FILES,
        "labels": ("labels.json", "labels.parquet"),
        "laq": ("laq.json", "model.safetensors"),
        "foundation": (
            "foundation.json",
            "model.safetensors",
            "backbone/config.json",
            "backbone/tokenizer.json",
            "backbone/processor_config.json",
        ),
        "policy": ("config.json", "model.safetensors", "policy_preprocessor.json", "policy_postprocessor.json"),
    }
    changes: dict[str, dict[str, Change]] = {
        "videos": DATASET_CHANGES,
        "images": IMAGE_CHANGES,
        "labels": LABEL_CHANGES,
        "laq": _LAQ,
        "foundation": _FOUNDATION,
        "chat": _CHAT,
        "policy": _POLICY,
        "flags": _FLAGS,
        **_pickles(),
    }
    damaged = [
        Mutation(f"{kind} {file}: {how}", kind, change)
        for kind, names in files.items()
        for file in names
        for how, change in damage(file).items()
        if not (file.endswith(".mp4") and how == "flipped")  # another picture, which contradicts no other file
    ]
    return damaged + [
        Mutation(f"{k} {name}", k, change) for k, all_of in changes.items() for name, change in all_of.items()
    ]


def _json(file: str, *changes: tuple[str, Any]) -> dict[str, Change]:
    return {f"{file}: {at}={str(value)[:30]}": entry(file, at, value) for at, value in changes}


_LAQ: dict[str, Change] = {
    **_json(
        "laq.json",
        ("config/spec/codebook_size", HUGE),
        ("config/spec/code_seq_len", 10**7),
        ("config/spec/code_dim", HUGE),
        ("config/spec/num_frames", HUGE),
        ("config/spec/frame_offset_s", NAN),
        ("config/encoder_layers", 10**6),
        ("config/dim", 10**8),
        ("config/image_size", [2**20, 2**20]),
        ("config/num_cameras", HUGE),
        ("config/action_dim", HUGE),
        ("config/feature_dim", HUGE),
        ("config/quantizer", "os.system"),
        ("config/targets", "pixels"),
        ("config/patch_size", 4),
        ("config/heads", True),
        ("config/dim", "128"),
        ("config/spec", ...),
        ("config", []),
        ("architecture", "../laq"),
        ("architecture", 3),
        ("fingerprint", "0" * 16),
        ("fingerprint", None),
        ("cameras", "observation.images.top"),
        ("cameras", ["a", "b", "c"]),
        ("surplus", 1),
    ),
    "weights: NaN": tensors("model.safetensors", filled(NAN)),
    "weights: 1e30": tensors("model.safetensors", filled(1e30)),
    "weights: one missing": tensors("model.safetensors", lambda found: found.popitem()),
    "weights: one too many": tensors(
        "model.safetensors", lambda found: found.update(more=next(iter(found.values())) * 1)
    ),
    "weights: half precision": tensors(
        "model.safetensors", lambda found: found.update({name: value.half() for name, value in found.items()})
    ),
}
_FOUNDATION: dict[str, Change] = {
    **_json(
        "foundation.json",
        ("latent_spec/codebook_size", HUGE),
        ("latent_spec/code_seq_len", 10**7),
        ("latent_spec/frame_offset_s", -1),
        ("config/image_size", [2**20, 2**20]),
        ("config/head_layers", 10**6),
        ("config/embedded_size", 3),
        ("backend", "os:system"),
        ("format", 99),
        ("laq_fingerprint", 7),
        ("latent_spec", ...),
    ),
    **_json(
        "backbone/config.json",
        ("text_config/num_hidden_layers", 10**6),
        ("text_config/hidden_size", 10**8),
        ("text_config/vocab_size", 10**10),
        ("vision_config/num_hidden_layers", 10**6),
        ("text_config", "none"),
        ("model_type", "llama"),
        ("auto_map", {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}),
    ),
    **_json(
        "backbone/processor_config.json",
        ("auto_map", {"AutoProcessor": "evil.Processor"}),
        ("processor_class", "subprocess.Popen"),
        ("image_processor", 3),
    ),
    "backbone/processor_config.json: auto_map with code beside it": lambda folder: _own_processor(folder),
    **_json(
        "backbone/chat_template.json",
        ("chat_template", _LOOP),
        ("chat_template", _LONG),
        ("chat_template", "{% for"),
        ("chat_template", ""),
        ("chat_template", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        ("chat_template", 3),
    ),
    "weights: NaN": tensors("model.safetensors", filled(NAN)),
    "weights: 1e30": tensors("model.safetensors", filled(1e30)),
    "weights: one missing": tensors("model.safetensors", lambda found: found.popitem()),
    "weights: one too many": tensors(
        "model.safetensors", lambda found: found.update(more=next(iter(found.values())) * 1)
    ),
}
_CHAT: dict[str, Change] = {
    **_json(
        "foundation.json",
        ("config/tokens/action_token_fmt", "<ACT_{i:>999999999}>"),
        ("config/tokens/action_token_fmt", "{i.__class__}"),
        ("config/tokens/action_token_fmt", "{i}{x}"),
        ("config/tokens/action_token_fmt", "{i}{i:>999999999}"),
        ("latent_spec/codebook_size", HUGE),
        ("config/loss_over", "nothing"),
    ),
    **_json("backbone/chat_template.json", ("chat_template", _LOOP)),
    **_json("backbone/config.json", ("vision_config/depth", 10**6), ("text_config/hidden_size", 10**8)),
    "weights: flipped": damage("model.safetensors")["flipped"],
}


def _own_processor(folder: Path) -> None:
    """Let the processor come from a module in the checkpoint, which creates a file when it is imported."""
    entry("backbone/processor_config.json", "auto_map", {"AutoProcessor": "evil.Processor"})(folder)
    entry("backbone/processor_config.json", "processor_class", "Processor")(folder)
    code = f"import pathlib\npathlib.Path({str(folder.parent / 'ran')!r}).touch()\n"
    (folder / "backbone" / "evil.py").write_text(code)


def _foreign(step: dict[str, Any]) -> Change:
    return entry("policy_preprocessor.json", "steps/0", step)


_POLICY: dict[str, Change] = {
    "foundation.json: cut": damage("foundation.json")["cut"],
    "backbone/config.json: cut": damage("backbone/config.json")["cut"],
    **_json(
        "config.json",
        ("type", "act"),
        ("type", 3),
        ("chunk_size", HUGE),
        ("chunk_size", "four"),
        ("decoder_hidden_dim", HUGE),
        ("decoder_layers", 10**6),
        ("input_features", {}),
        ("output_features", None),
        ("surplus", 1),
    ),
    **_json(
        "policy_preprocessor.json",
        ("steps", []),
        ("steps/0/registry_name", "nothing"),
        ("steps/0/registry_name", 3),
        ("steps", "all"),
    ),
    "preprocessor: subprocess.Popen": lambda folder: _foreign(
        {"class": "subprocess.Popen", "config": {"args": ["touch", str(folder.parent / "ran")]}}
    )(folder),
    "preprocessor: os.mkdir": lambda folder: _foreign(
        {"class": "os.mkdir", "config": {"path": str(folder.parent / "ran")}}
    )(folder),
    "preprocessor: no class": _foreign({"config": {}}),
    "preprocessor: state file outside": entry(
        "policy_preprocessor.json", "steps/4/state_file", "../../other.safetensors"
    ),
    "postprocessor: subprocess.Popen": lambda folder: entry(
        "policy_postprocessor.json",
        "steps/0",
        {"class": "subprocess.Popen", "config": {"args": ["touch", str(folder.parent / "ran")]}},
    )(folder),
    **{
        f"{part} statistics: {how}": damage(file)[how]
        for part, file in (
            ("before", "policy_preprocessor_step_4_normalizer_processor.safetensors"),
            ("after", "policy_postprocessor_step_0_unnormalizer_processor.safetensors"),
        )
        for how in ("cut", "flipped", "missing")
    },
    "statistics: NaN": tensors(
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors", filled(NAN, "action.std")
    ),
    "statistics: 1e30": tensors(
        "policy_postprocessor_step_0_unnormalizer_processor.safetensors", filled(1e30, "action.std")
    ),
    "weights: NaN": tensors("model.safetensors", filled(NAN)),
    "weights: 1e30": tensors("model.safetensors", filled(1e30)),
    "weights: one missing": tensors("model.safetensors", lambda found: found.popitem()),
}
_FLAGS: dict[str, Change] = {
    f"flags {number}": lambda folder, flags=flags: (folder / "flags.txt").write_text("\n".join(flags))
    for number, flags in enumerate(
        (
            ["--laq_path=!include /etc/hostname"],
            ["--laq_path", "include /etc/hostname"],
            ["--cameras=[!include /etc/hostname]"],
            ["--config_path=/proc/self/environ"],
            ["--batch_size=!!python/object/apply:os.getcwd []"],
            ["--batch_size=1e30"],
        )
    )
}


def _pickles() -> dict[str, dict[str, Change]]:
    """Hostile pickles of every format, at every path from which a library would load one."""
    kinds = ("zip", "legacy", "pickle", "bare zip")
    places = {
        "lightning": ("vla.ckpt", None),
        "lapa": ("vla.ckpt", None),
        "hub chat": ("chat/pytorch_model.bin", "chat/model.safetensors"),
        "hub vision": ("vision/pytorch_model.bin", "vision/model.safetensors"),
        "foundation": ("model.safetensors", None),
    }

    def written(file: str, kind: str, removed: str | None) -> Change:
        def change(folder: Path) -> None:
            if removed is not None:
                (folder / removed).unlink()
            hostile(file, kind)(folder)

        return change

    return {
        place: {f"hostile {kind}": written(file, kind, removed) for kind in kinds}
        for place, (file, removed) in places.items()
        if place != "foundation"
    }
