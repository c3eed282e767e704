from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from hlrp.experts.code_decoder import CodeToActionDecoder, CodeVectors
from hlrp.latents import LatentSpec

SPEC = LatentSpec(codebook_size=5, code_seq_len=2, num_frames=3, code_dim=4)


def decoder(state_dim: int | None = None) -> CodeToActionDecoder:
    return CodeToActionDecoder(SPEC, chunk_size=6, action_dim=3, state_dim=state_dim, hidden_dim=16)


def codes(b: int = 7) -> Tensor:
    return torch.randint(SPEC.codebook_size, (b, SPEC.num_codes))


def test_codes_become_a_chunk_of_actions() -> None:
    assert decoder()(codes()).shape == (7, 6, 3)
    assert decoder(state_dim=2)(codes(), torch.randn(7, 2)).shape == (7, 6, 3)


def test_an_action_depends_on_its_own_sample_only() -> None:
    model, given = decoder(), codes()
    torch.testing.assert_close(model(given.flip(0)), model(given).flip(0))


@pytest.mark.parametrize("place", range(SPEC.num_codes))
def test_every_code_of_every_transition_counts(place: int) -> None:
    model, given = decoder(), codes()
    other = given.clone()
    other[:, place] = (other[:, place] + 1) % SPEC.codebook_size
    assert ((model(given) - model(other)).abs().amax((1, 2)) > 1e-6).all()


def test_the_state_counts_where_there_is_one() -> None:
    model, given = decoder(state_dim=2), codes()
    assert not torch.allclose(model(given, torch.zeros(7, 2)), model(given, torch.ones(7, 2)))


def test_codes_are_names_so_that_renaming_them_with_their_vectors_changes_nothing() -> None:
    model, given = decoder(), codes()
    before = model(given)
    new_name = torch.tensor([3, 0, 4, 1, 2])
    model.codes.codebook[:, new_name] = model.codes.codebook.clone()
    torch.testing.assert_close(model(new_name[given]), before)


def test_slots_have_codebooks_of_their_own() -> None:
    model, given = decoder(), codes()
    before = model(given)
    model.codes.codebook[1] += 1
    changed = model(given)
    model.codes.codebook[1] -= 1
    assert not torch.allclose(changed, before)
    same = torch.zeros_like(given)
    assert not torch.allclose(model.codes.codebook[0], model.codes.codebook[1])
    assert torch.equal(model(same)[0], model(same)[1])


def test_the_codebook_of_a_laq_is_taken_over_in_scale_and_saved_but_not_trained() -> None:
    model = decoder()
    codebook = 100 * torch.randn(2, 5, 4)
    model.codes.use_codebook(codebook)
    assert model.codes.codebook.std().item() == pytest.approx(1)
    torch.testing.assert_close(model.codes.codebook * codebook.std(), codebook)
    assert "codes.codebook" in model.state_dict()
    assert "codes.codebook" not in dict(model.named_parameters())

    other = decoder()
    other.load_state_dict(model.state_dict())
    given = codes()
    assert torch.equal(other(given), model(given))


def test_a_codebook_of_another_geometry_is_refused() -> None:
    with pytest.raises(ValueError, match=r"codebook is \(2, 6, 4\) .* expected \(2, 5, 4\); use labels and a policy"):
        decoder().codes.use_codebook(torch.randn(2, 6, 4))


def test_two_decoders_start_with_the_same_distinct_vectors() -> None:
    one, other = decoder(), decoder()
    assert torch.equal(one.codes.codebook, other.codes.codebook)
    assert len(one.codes.codebook.flatten(0, 1).unique(dim=0)) == 10


def test_learned_vectors_move_and_keep_their_width() -> None:
    vectors = CodeVectors(SPEC, learned_width=6)
    vectors.use_codebook(torch.randn(2, 5, 4))
    assert vectors(codes()).shape == (7, SPEC.num_codes, 6)
    assert vectors.width == 6 * SPEC.num_codes
    vectors(codes()).sum().backward()
    assert vectors.codebook.grad is not None


def test_without_hidden_layers_it_is_a_linear_map_of_the_vectors() -> None:
    model = CodeToActionDecoder(SPEC, chunk_size=2, action_dim=3, state_dim=None, hidden_dim=16, layers=0)
    assert [type(layer) for layer in model.head.layers] == [torch.nn.Linear]


def test_it_learns_an_arbitrary_table_from_codes_to_actions() -> None:
    spec = LatentSpec(codebook_size=4, code_seq_len=2, code_dim=4)
    model = CodeToActionDecoder(spec, chunk_size=2, action_dim=1, state_dim=None, hidden_dim=32)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    wanted = torch.randn(16, 2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        loss = (model(pairs) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-2


def without_state(model: CodeToActionDecoder) -> Tensor:
    return model(codes())


def with_a_code_out_of_range(model: CodeToActionDecoder) -> Tensor:
    return model(torch.full((1, SPEC.num_codes), SPEC.codebook_size), torch.zeros(1, 2))


@pytest.mark.parametrize(("call", "error"), [(without_state, AssertionError), (with_a_code_out_of_range, IndexError)])
def test_our_own_mistakes_do_not_pass_silently(
    call: Callable[[CodeToActionDecoder], Tensor], error: type[Exception]
) -> None:
    with pytest.raises(error):
        call(decoder(state_dim=2))
