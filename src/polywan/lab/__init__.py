"""A network in private namespaces, with real traffic and faults: for `polywan lab`, tests and benchmarks."""
