"""What goes on beside the loop, so that it never waits?"""
