"""What the rules of other programs say: nftables and both iptables as values of one kind."""
