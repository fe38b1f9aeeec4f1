"""Which routes, policy rules, nexthops and kernel settings does that need?"""
