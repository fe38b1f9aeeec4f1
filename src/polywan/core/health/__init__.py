"""Does an uplink work, and how well? Judged from probes, checks and the connections themselves."""
