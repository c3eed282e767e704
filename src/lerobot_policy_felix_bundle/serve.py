"""LeRobot's policy server for asynchronous inference, with this plugin's policy types allowed.

    python -m lerobot_policy_felix_bundle.serve --host=127.0.0.1 --port=8080

LeRobot's own server loads no plugins and accepts only a fixed list of policy types; LeRobot's robot client loads
plugins and needs no replacement. The client's `--actions_per_chunk`, not the policy's `n_action_steps`, says how many
actions of a chunk are used.

Server and client exchange pickles, which can run any code. So the server listens on a loopback address unless
`--trust_network=true` says that every machine that can reach it is trusted.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys

import draccus
from lerobot.configs import PreTrainedConfig

from hlrp.runtime.extras import MissingPackage, require_packages


def our_policy_types() -> list[str]:
    """Policy types that this plugin registers, which happens when the package is imported."""
    return sorted(
        kind
        for kind, config in PreTrainedConfig.get_known_choices().items()
        if config.__module__.startswith(f"{__package__}.")
    )


def allow_our_policies() -> None:
    """Add this plugin's policy types to the list that LeRobot's policy server accepts; may be called repeatedly."""
    from lerobot.async_inference.constants import SUPPORTED_POLICIES

    SUPPORTED_POLICIES.extend(kind for kind in our_policy_types() if kind not in SUPPORTED_POLICIES)


def require_trusted_address(host: str, *, trust_network: bool) -> None:
    """Raise unless only this machine can reach `host`, or the network is trusted.

    Raises:
        ValueError: If `host` is no loopback address, and `trust_network` is false.
    """
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:  # the name of a machine
        is_loopback = False
    if not (is_loopback or trust_network):
        raise ValueError(
            f"--host={host} can be reached from other machines, and this server runs whatever pickle a client sends; "
            "use --host=127.0.0.1 with an SSH tunnel, or add --trust_network=true if you trust every machine that can "
            "reach it"
        )


def main() -> None:
    """Entry point of the command; its options are those of LeRobot's policy server, and `--trust_network`."""
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    options.add_argument("--trust_network", choices=("true", "false"), default="false", nargs="?", const="true")
    known, further = options.parse_known_args()
    try:
        require_packages("grpc", needed_for="the policy server")
    except MissingPackage as error:
        sys.exit(f"error: {error}")
    allow_our_policies()
    # Imported here, because importing the module creates a log file in ./logs.
    from lerobot.async_inference.policy_server import PolicyServerConfig, serve

    config = draccus.parse(PolicyServerConfig, args=further)
    try:
        require_trusted_address(config.host, trust_network=known.trust_network == "true")
    except ValueError as error:
        sys.exit(f"error: {error}")
    print(
        f"trusted by this server: whatever connects to {config.host}:{config.port} may run any code here (pickles are "
        "LeRobot's protocol), and may name any policy that this machine can read",
        file=sys.stderr,
        flush=True,
    )
    serve(config)


if __name__ == "__main__":
    main()
