"""Whether the training loss or the action of a LeRobot policy can see what comes after the current frame."""
