"""What comes next? `step(state, event, now)`, and the rules of every event that it takes."""
