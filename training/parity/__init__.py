"""Our numbers beside those of the official code, tabled by `python -m cmkd_ros.training.parity`."""
