"""What do pages and terminals draw: what has changed since, what is measured, what would an order do?"""
