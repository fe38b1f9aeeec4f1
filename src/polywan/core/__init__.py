"""Decisions as pure functions of values; time is an argument, effects are values too."""
