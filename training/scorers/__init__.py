"""Models of a line that has shown good parts alone: how far each place lies from what is normal there.

One method a file; ``network`` puts it behind a trunk, ``fitting`` fits it, ``commission`` takes it to a bundle.
"""
