"""Which links of this machine are uplinks, and what would the file say?"""
