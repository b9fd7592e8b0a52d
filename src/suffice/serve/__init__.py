"""The request path. `app.py` tells it from top to bottom."""
