"""What is known, what happened, and what is to be done: the values that the engine works on."""
