"""A configuration on trial: what ends it, who may confirm it, and what was in force before."""
