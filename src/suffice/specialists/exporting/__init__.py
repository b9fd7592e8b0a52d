"""Specialists that leave the server: one ONNX graph for the whole decision, short runners in two languages."""
