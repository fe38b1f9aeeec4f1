"""What is wrong with this machine, and how is it mended?

`reading/` reads the machine into a `Box`, `checks/` has one check for each file, which are functions of it,
`examine.py` puts both together, and `mending.py` carries out fixes.
"""
