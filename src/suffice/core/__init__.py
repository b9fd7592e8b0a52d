"""The nouns, frozen, and what rooms expect of each other. Imports nothing of ours."""
