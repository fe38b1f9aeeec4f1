"""Where would a packet go, and why?"""
