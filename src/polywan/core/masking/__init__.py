"""What may others see of this machine's texts, and what stands for the rest?"""
