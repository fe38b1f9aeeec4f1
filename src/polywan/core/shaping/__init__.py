"""Which queueing disciplines does that need, for packets that leave by an uplink and for those that come in?"""
