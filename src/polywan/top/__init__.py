"""`polywan top`: the state of every uplink on one screen, second by second."""
