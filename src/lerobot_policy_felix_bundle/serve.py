"""LeRobot's policy server for asynchronous inference, with this plugin's policy types allowed.

    python -m lerobot_policy_felix_bundle.serve --host=127.0.0.1 --port=8080

The server loads no plugins and compares a client's policy type with a fixed list; LeRobot's robot client does load
them and needs nothing of this. How many actions of a chunk the client takes is its own `--actions_per_chunk`, not the
policy's `n_action_steps`. Server and client exchange pickles, which can run any code: listen where only machines
you trust can connect.
"""

from __future__ import annotations

import sys

from lerobot.configs import PreTrainedConfig

from hlrp.runtime.extras import MissingPackage, require_packages


def our_policy_types() -> list[str]:
    """Policy types that this plugin registers; importing anything of the package has registered them."""
    return sorted(
        kind
        for kind, config in PreTrainedConfig.get_known_choices().items()
        if config.__module__.startswith(f"{__package__}.")
    )


def allow_our_policies() -> None:
    """Let LeRobot's policy server load our types; twice does no more than once."""
    from lerobot.async_inference.constants import SUPPORTED_POLICIES

    SUPPORTED_POLICIES.extend(kind for kind in our_policy_types() if kind not in SUPPORTED_POLICIES)


def main() -> None:
    """Entry point; takes the flags of LeRobot's server."""
    try:
        require_packages("grpc", needed_for="the policy server")
    except MissingPackage as error:
        sys.exit(f"error: {error}")
    allow_our_policies()
    # Here and not above: importing it opens a log file in ./logs.
    from lerobot.async_inference.policy_server import serve

    serve()  # pyright: ignore[reportCallIssue]  draccus reads its argument from the command line


if __name__ == "__main__":
    main()
