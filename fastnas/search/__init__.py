"""What is trained on which data, and when; checkpoints, logs and figures of it: docs/search.md.

The modules are imported one by one, so that the command line can read `config` without waiting for PyTorch.
"""
