"""Measurements on disk: kept beside the loop, and what is answered from them."""
