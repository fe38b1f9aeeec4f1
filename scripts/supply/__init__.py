"""What polywan takes from others: its Python packages, their known vulnerabilities and their licences."""
