"""Bytes to nouns and back, one file per dialect. Pure: no I/O, no clock."""
