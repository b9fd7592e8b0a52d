"""Suffice: the smallest model that suffices for each repeated LLM call, found, proven and served.

Two files tell the system: `serve/app.py` (a request's way) and `learn/pipeline.py` (a record's way to a release).
"""

__version__ = "0.1.0"
