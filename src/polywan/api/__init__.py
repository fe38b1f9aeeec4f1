"""What do the daemon and its clients say to each other?"""
