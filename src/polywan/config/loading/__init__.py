"""What does this file say, and what is wrong with it?"""
