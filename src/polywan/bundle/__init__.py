"""What does somebody else need to see of this machine, to help with polywan on it?

`own.py` and `system.py` read the parts, `assemble.py` masks them and packs them into one file.
"""
