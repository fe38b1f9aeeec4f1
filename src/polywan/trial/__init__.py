"""Try a configuration and get the old one back: what runs beside the daemon, so that it works without it."""
