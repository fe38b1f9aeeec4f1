"""What does a browser see of a box, and what may it do? A client of the control socket that serves HTTP itself."""
