"""How much has each uplink carried of what it may, and what follows from that?"""
