"""What may be asked over the control socket, by whom, and who answers?"""
