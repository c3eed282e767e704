"""LAPA's quantizer: its released layout, and the very codes of its released code."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hlrp.laq.lapa.model import LapaQuantizer, mixed_slots
from hlrp.laq.lapa.weights import UNUSED, convert, infer_config, load_lapa_weights, our_name
from lapa_layout import CODE_DIM, CODES, DIM, HEAD_DIM, HEADS, PATCH, SIDE, lapa_clips, lapa_state

# What the released code, on a CPU, says about `lapa_clips(6)` with the weights of `lapa_state()`.
RELEASED_CODES = [[0, 7, 0, 5], [7, 4, 5, 0], [3, 7, 6, 5], [3, 7, 0, 3], [7, 0, 4, 7], [7, 7, 4, 5]]
RELEASED_VECTORS = [
    [-0.36972642, 0.45201838, 0.31456339, -0.49040687],
    [-0.83861566, 0.20246333, 0.81390762, -0.30179054],
    [-0.17315191, 0.92383766, 0.06040883, -0.93120968],
    [-0.08993233, -1.17791152, 0.23368178, 1.14939332],
]
RELEASED_PIXELS = [1.61322236, -0.34031058, -2.16481829, -1.24662447, 1.29744148, 0.99194115]


def quantizer(*, num_frames: int = 2, kernel: tuple[int, int] = (3, 3)) -> LapaQuantizer:
    state = lapa_state(kernel)
    return convert(state, infer_config(state, code_seq_len=None, num_frames=num_frames, frame_offset_s=1.0))


@torch.no_grad()
def test_codes_vectors_and_pictures_are_those_of_the_released_code() -> None:
    result = quantizer()(lapa_clips(6))
    assert result.codes[:, 0].tolist() == RELEASED_CODES
    torch.testing.assert_close(result.vectors[0, 0], torch.tensor(RELEASED_VECTORS), rtol=1e-4, atol=1e-5)
    assert result.frames is not None
    torch.testing.assert_close(result.frames[0, 0, 0, 0, 5, :6], torch.tensor(RELEASED_PIXELS), rtol=1e-4, atol=1e-5)


def test_the_architecture_is_read_from_the_shapes() -> None:
    config = quantizer().config
    assert (config.dim, config.heads, config.head_dim, config.patch_size) == (DIM, HEADS, HEAD_DIM, PATCH)
    assert (config.spatial_layers, config.temporal_layers) == (1, 1)
    assert config.image_size == (SIDE, SIDE)
    assert (config.spec.codebook_size, config.spec.code_dim, config.spec.code_seq_len) == (CODES, CODE_DIM, 4)


@pytest.mark.parametrize(("kernel", "slots"), [((4, 4), 1), ((3, 4), 2)])
def test_other_numbers_of_slots_have_convolutions_of_their_own(kernel: tuple[int, int], slots: int) -> None:
    model = quantizer(kernel=kernel)
    assert model.encode(lapa_clips(2)).require_codes().shape == (2, 1, slots)


def test_a_number_of_slots_that_the_convolutions_contradict_is_refused() -> None:
    with pytest.raises(ValueError, match="pool to 4 or 16 code slots, not to code_seq_len=1"):
        infer_config(lapa_state(), code_seq_len=1, num_frames=2, frame_offset_s=1.0)
    config = infer_config(lapa_state(), code_seq_len=16, num_frames=2, frame_offset_s=1.0)
    assert config.image_size == (16 * PATCH, 16 * PATCH)


def test_every_weight_has_a_place_or_is_known_to_be_unused() -> None:
    used = [key for key in lapa_state() if not UNUSED.fullmatch(key)]
    names = [our_name(key) for key in used]
    assert None not in names
    assert len(set(names)) == len(names)
    assert {our_name(key) for key in used} <= set(quantizer().state_dict())
    assert {key.rpartition("layers.0.1.")[2] for key in lapa_state() if UNUSED.fullmatch(key)} == {
        "context_norm.gamma",
        "context_norm.beta",
        "null_kv",
    }


def test_unknown_missing_and_misshapen_weights_are_refused() -> None:
    state = lapa_state()
    config = quantizer().config
    with pytest.raises(ValueError, match=r"1 weights are none of LAPA's quantizer, the first is vq\.extra"):
        convert({**state, "vq.extra": torch.zeros(1)}, config)
    without = {key: value for key, value in state.items() if key != "vq.project_out.bias"}
    with pytest.raises(ValueError, match=r"Missing key.*decoder\.from_code\.bias"):
        convert(without, config)
    with pytest.raises(ValueError, match=r"size mismatch for decoder\.from_code\.bias"):
        convert({**state, "vq.project_out.bias": torch.zeros(3)}, config)
    with pytest.raises(ValueError, match=r"the weights lack 'vq\.codebooks'"):
        infer_config(
            {key: value for key, value in state.items() if key != "vq.codebooks"},
            code_seq_len=None,
            num_frames=2,
            frame_offset_s=1.0,
        )


def test_the_decoder_reads_the_old_layout_in_which_every_vector_holds_values_of_every_code() -> None:
    codes = torch.tensor([[[0.0, 1, 2, 3], [4, 5, 6, 7]]])  # two slots of width four
    assert mixed_slots(codes).tolist() == [[[0, 2, 4, 6], [1, 3, 5, 7]]]  # apart they would stay as they came
    one_slot = torch.rand(3, 1, 4)
    assert torch.equal(mixed_slots(one_slot), one_slot)

    four_slots = torch.zeros(1, 4, 4)
    four_slots[:, 2] = 1
    assert (mixed_slots(four_slots) != 0).any(-1).all()


def test_the_encoder_keeps_slots_apart_on_a_grid() -> None:
    model = quantizer()
    tokens = torch.randn(1, 64, DIM)
    changed = tokens.clone()
    changed[:, -1] += 1  # the last patch, at the bottom right
    moved = (model.encoder.pool(tokens) != model.encoder.pool(changed)).any(-1)
    assert moved.tolist() == [[False, False, False, True]]


def test_more_frames_are_consecutive_pairs() -> None:
    frames = lapa_clips(4).reshape(2, 4, 1, 3, SIDE, SIDE)[:, :3]
    pair, model = quantizer(), quantizer(num_frames=3)
    together = model.encode(frames)
    for n in range(2):
        alone = pair.encode(frames[:, n : n + 2])
        assert torch.equal(together.require_codes()[:, n], alone.require_codes()[:, 0])
        torch.testing.assert_close(together.require_vectors()[:, n], alone.require_vectors()[:, 0])


def test_codes_are_names_of_code_vectors_and_predict_what_the_forward_pass_predicts() -> None:
    model, clips = quantizer(), lapa_clips(3)
    with torch.no_grad():
        result = model(clips)
        vectors = model.lookup(model.encode(clips).require_codes())
        torch.testing.assert_close(model.predict(clips[:, :1], vectors), result.frames)
    assert torch.equal(model.codebook()[0], model.codebook()[3])
    assert torch.equal(model.codebook()[0][result.codes[0, 0]], vectors[0, 0])


def test_bytes_and_fractions_mean_the_same_pixels() -> None:
    model, clips = quantizer(), (lapa_clips(2) * 255).byte()
    torch.testing.assert_close(model.encode(clips).vectors, model.encode(clips.float() / 255).vectors)


def test_it_does_not_train() -> None:
    model = quantizer()
    assert not model.training
    with pytest.raises(ValueError, match="only labels; train one of ours"):
        model.train()


def test_weights_saved_by_several_processes_load_too(tmp_path: Path) -> None:
    state = lapa_state()
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "laq.pt")
    assert load_lapa_weights(tmp_path / "laq.pt").keys() == state.keys()


class Harmful:
    """Something that a pickle could run."""


@pytest.mark.parametrize("content", [{"model": Harmful()}, {"steps": 3}, [1, 2]])
def test_a_file_that_holds_more_than_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "laq.pt")
    with pytest.raises(ValueError, match=r"laq\.pt is not a state dict of LAPA's quantizer"):
        load_lapa_weights(tmp_path / "laq.pt")


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    torch.save(lapa_state(), tmp_path / "laq.pt")
    content = (tmp_path / "laq.pt").read_bytes()
    for damaged in (content[: len(content) // 2], b"no weights", b""):
        (tmp_path / "laq.pt").write_bytes(damaged)
        with pytest.raises(ValueError, match="is not a state dict of LAPA's quantizer"):
            load_lapa_weights(tmp_path / "laq.pt")
