"""How is our nftables table written, and read back?"""
