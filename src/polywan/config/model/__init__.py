"""What may a file say? Frozen models, with the reason for each default."""
