"""How are queueing disciplines written, and read back?"""
