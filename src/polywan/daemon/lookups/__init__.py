"""What do files, names, control groups and leases on this machine say just now?"""
