"""Who serves which policy, and whose connections are drained?"""
