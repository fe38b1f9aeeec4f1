"""What does a page or a terminal follow, and how does everybody who follows get it without delaying a decision?"""
