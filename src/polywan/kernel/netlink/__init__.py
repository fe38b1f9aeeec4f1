"""How are messages sent, read and kept apart: netlink's transport, and routing's messages on it?"""
