"""Speed and memory: against the official PyTorch code, against growing work, against the limits of the machine."""
