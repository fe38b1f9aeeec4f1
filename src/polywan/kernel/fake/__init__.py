"""What would Linux do? A kernel in memory, held to the same contract."""
