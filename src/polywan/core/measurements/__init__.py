"""What was measured of uplinks and clients, added up: values in, values out."""
