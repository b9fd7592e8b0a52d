"""The command line, and the only place that wires rooms together. One file per command."""
