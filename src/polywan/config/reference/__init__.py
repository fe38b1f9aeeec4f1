"""What does the documentation say of the models, and what do editors check?"""
