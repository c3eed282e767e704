"""Asynchronous inference: LeRobot's policy server with our types, asked over a real connection."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

pytest.importorskip("grpc", reason="LeRobot's policy server needs grpcio: install the extra `async`")

import grpc
from lerobot.async_inference.constants import SUPPORTED_POLICIES
from lerobot.async_inference.helpers import RemotePolicyConfig, TimedObservation
from lerobot.transport import services_pb2, services_pb2_grpc
from lerobot.transport.utils import send_bytes_in_chunks
from lerobot.utils.feature_utils import hw_to_dataset_features

from lerobot_policy_felix_bundle.serve import allow_our_policies, our_policy_types, require_trusted_address
from policy_workshop import SMALL, Workshop
from robot_deployment import PretendArm, PretendArmConfig, predicted_chunk, save_policy

TASK = "Move the square to the right"


@pytest.fixture
def arm(tmp_path: Path) -> PretendArm:
    return PretendArm(PretendArmConfig(calibration_dir=tmp_path / "calibration"))


@pytest.fixture(scope="module")
def policy_server(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """LeRobot's module, whose import opens a log in the working directory and takes over all logging."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    with contextlib.chdir(tmp_path_factory.mktemp("server")):
        from lerobot.async_inference import policy_server
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    return policy_server


@pytest.fixture
def address(policy_server: ModuleType) -> Iterator[str]:
    """Where LeRobot's server listens, in this process."""
    allow_our_policies()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    config = policy_server.PolicyServerConfig(inference_latency=0.0, obs_queue_timeout=0.2)
    servicer = policy_server.PolicyServer(config)
    services_pb2_grpc.add_AsyncInferenceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(grace=None).wait()


class Client:
    """What LeRobot's robot client sends, without its threads."""

    def __init__(self, channel: grpc.Channel, arm: PretendArm) -> None:
        self._stub = services_pb2_grpc.AsyncInferenceStub(channel)
        self._features = hw_to_dataset_features(arm.observation_features, "observation")

    def load(self, kind: str, folder: Path, *, actions_per_chunk: int) -> None:
        """Greet the server and name the policy it shall load."""
        self._stub.Ready(services_pb2.Empty(), wait_for_ready=True, timeout=300)
        setup = RemotePolicyConfig(kind, str(folder), self._features, actions_per_chunk, "cpu")
        self._stub.SendPolicyInstructions(services_pb2.PolicySetup(data=pickle.dumps(setup)))

    def actions(self, observation: dict[str, Any]) -> list[torch.Tensor]:
        """The chunk that answers an observation; empty where the server has none."""
        timed = TimedObservation(timestamp=time.time(), timestep=0, observation=observation, must_go=True)
        self._stub.SendObservations(send_bytes_in_chunks(pickle.dumps(timed), services_pb2.Observation, silent=True))
        answer = self._stub.GetActions(services_pb2.Empty())
        return [timed.get_action() for timed in pickle.loads(answer.data)] if answer.data else []


@pytest.mark.parametrize("kind", sorted(SMALL))
def test_the_server_answers_with_the_policys_chunk(
    workshop: Workshop, arm: PretendArm, address: str, kind: str, tmp_path: Path
) -> None:
    folder = save_policy(workshop, tmp_path / "policy", kind)
    observation = arm.get_observation()
    expected = predicted_chunk(folder, observation, TASK)
    with grpc.insecure_channel(address) as channel:
        client = Client(channel, arm)
        client.load(kind, folder, actions_per_chunk=3)
        torch.manual_seed(0)
        answer = client.actions({**observation, "task": TASK})
    assert expected.shape == (4, 4)
    torch.testing.assert_close(torch.stack(answer), expected[:3])


def test_without_a_task_there_are_no_actions(
    workshop: Workshop, arm: PretendArm, address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = save_policy(workshop, tmp_path / "policy", "hlrp_vla_direct")
    with grpc.insecure_channel(address) as channel:
        client = Client(channel, arm)
        client.load("hlrp_vla_direct", folder, actions_per_chunk=3)
        assert client.actions(arm.get_observation()) == []
    assert "this policy follows an instruction" in caplog.text


def test_only_our_types_are_added_and_only_once() -> None:
    allow_our_policies()
    allow_our_policies()
    assert set(our_policy_types()) >= set(SMALL)
    assert all(kind.startswith("hlrp_") for kind in our_policy_types())
    assert len(SUPPORTED_POLICIES) == len(set(SUPPORTED_POLICIES))
    assert {"act", *our_policy_types()} <= set(SUPPORTED_POLICIES)


@pytest.mark.slow
def test_the_command_serves(workshop: Workshop, arm: PretendArm, tmp_path: Path) -> None:
    folder = save_policy(workshop, tmp_path / "policy", "hlrp_vla_direct")
    observation = arm.get_observation()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = (sys.executable, "-m", "lerobot_policy_felix_bundle.serve", "--host=127.0.0.1", f"--port={port}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            client = Client(channel, arm)
            client.load("hlrp_vla_direct", folder, actions_per_chunk=4)
            answer = client.actions({**observation, "task": TASK})
    finally:
        process.terminate()
        process.wait(timeout=30)
    torch.testing.assert_close(torch.stack(answer), predicted_chunk(folder, observation, TASK))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.8.0.1", "[::1]", "::1"])
def test_a_loopback_address_needs_no_trust(host: str) -> None:
    require_trusted_address(host, trust_network=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "robot.example", "::", ""])
def test_other_addresses_need_a_flag(host: str) -> None:
    with pytest.raises(ValueError, match=r"can be reached from other machines.*--trust_network=true"):
        require_trusted_address(host, trust_network=False)
    require_trusted_address(host, trust_network=True)
