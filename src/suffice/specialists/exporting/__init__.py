"""Specialists that leave the server: one ONNX graph for the whole decision, and short runners in Python and JavaScript."""
