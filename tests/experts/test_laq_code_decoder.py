from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from hlrp.experts.laq_code_decoder import LAQCodeDecoder
from hlrp.laq.config import debug
from hlrp.laq.model import LatentActionQuantizer
from hlrp.latents import LatentSpec

HEAD = {"chunk_size": 3, "action_dim": 2, "state_dim": 4, "hidden_dim": 16, "layers": 1}


@pytest.fixture(params=[2, 3], ids=["one transition", "two transitions"])
def laq(request: pytest.FixtureRequest) -> LatentActionQuantizer:
    torch.manual_seed(0)
    return LatentActionQuantizer(replace(debug(), spec=LatentSpec(num_frames=request.param))).eval()


def inputs(laq: LatentActionQuantizer, b: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    codes = torch.randint(8, (b, laq.spec.num_codes))
    return codes, torch.rand(b, 1, 3, *laq.config.image_size), torch.randn(b, 4)


def test_it_sees_what_the_quantizers_decoder_sees(laq: LatentActionQuantizer) -> None:
    decoder = LAQCodeDecoder.of_laq(laq, **HEAD)
    codes, frame, _ = inputs(laq)
    n = laq.spec.num_transitions
    frames = frame[:, None].expand(-1, n, -1, -1, -1, -1)
    theirs = laq.decoder.tokens(frames, laq.lookup(codes.view(5, n, -1)))
    ours = decoder.trunk.tokens(frames, decoder.codebook[torch.arange(4), codes.view(5, n, -1)])
    for one, other in zip(theirs, ours, strict=True):
        torch.testing.assert_close(one, other)


def test_codes_frame_and_state_each_count(laq: LatentActionQuantizer) -> None:
    decoder = LAQCodeDecoder.of_laq(laq, **HEAD)
    codes, frame, state = inputs(laq)
    base = decoder(codes, frame, state)
    assert base.shape == (5, 3, 2)
    for place in range(codes.shape[1]):
        other = codes.clone()
        other[:, place] = (other[:, place] + 1) % 8
        assert not torch.allclose(decoder(other, frame, state), base)
    assert not torch.allclose(decoder(codes, 1 - frame, state), base)
    assert not torch.allclose(decoder(codes, frame, state + 1), base)


def test_it_holds_no_picture_heads_and_its_codebook_is_not_trained(laq: LatentActionQuantizer) -> None:
    decoder = LAQCodeDecoder.of_laq(laq, **HEAD)
    assert not any(name.startswith("trunk.heads") for name in decoder.state_dict())
    assert "codebook" in decoder.state_dict()
    assert "codebook" not in dict(decoder.named_parameters())
