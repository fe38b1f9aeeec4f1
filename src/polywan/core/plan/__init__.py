"""What has to change, in which order, and what is in the way?"""
