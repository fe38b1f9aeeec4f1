"""What in that table is there for the sake of other programs?"""
