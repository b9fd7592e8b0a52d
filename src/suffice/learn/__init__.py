"""The learning path. `pipeline.py` tells it from top to bottom."""
