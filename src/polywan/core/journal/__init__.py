"""What happened to the uplinks: entries of the journal, and the hooks that are called for them."""
