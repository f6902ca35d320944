"""Reports of training runs: what student and teacher see, side by side."""
