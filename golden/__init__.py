"""The executable specification of Gossamer, in numpy alone.

What a module here returns is what the hardware must return, bit for bit. The code says what is meant, not how hardware
does it, so that the hardware's tricks stay under test. Nothing here depends on another folder of the project.
"""
