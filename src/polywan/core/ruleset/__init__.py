"""Which nftables table does that need?"""
