"""How is a single value written, and what is wrong with one that is not?"""
