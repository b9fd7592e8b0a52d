"""The demo's world, all of it simulated: support traffic of a shop that does not exist, and a frontier model."""
