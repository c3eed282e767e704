"""LeRobot's policy server for asynchronous inference, with this plugin's policy types allowed.

    python -m lerobot_policy_felix_bundle.serve --host=127.0.0.1 --port=8080

LeRobot's own server loads no plugins and accepts only a fixed list of policy types; LeRobot's robot client loads
plugins and needs no replacement. The client's `--actions_per_chunk`, not the policy's `n_action_steps`, says how many
actions of a chunk are used. Server and client exchange pickles, which can run any code: listen only on networks where
you trust every machine.
"""

from __future__ import annotations

import sys

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


def main() -> None:
    """Entry point of the command; its options are those of LeRobot's policy server."""
    try:
        require_packages("grpc", needed_for="the policy server")
    except MissingPackage as error:
        sys.exit(f"error: {error}")
    allow_our_policies()
    # Imported here, because importing the module creates a log file in ./logs.
    from lerobot.async_inference.policy_server import serve

    serve()  # pyright: ignore[reportCallIssue]  draccus reads its argument from the command line


if __name__ == "__main__":
    main()
