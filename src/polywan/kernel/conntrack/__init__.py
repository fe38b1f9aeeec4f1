"""Which connections are there, and how is one let go of?"""
