"""What are people and programs shown?"""
